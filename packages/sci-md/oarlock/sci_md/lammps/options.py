"""The words behind the model in `pair_style oarlock MODEL key value …`."""

import inspect
from collections.abc import Sequence
from typing import Any

_SWITCH = {"yes": True, "on": True, "true": True, "no": False, "off": False, "false": False}


def read_options(words: Sequence[str]) -> dict[str, Any]:
    """Options of `open_evaluator`, whose keywords and types decide what is allowed.

    Raises:
        ValueError: an unknown key, a key without a value or given twice, or a value of another type.
    """
    from oarlock.sci_md.evaluate.opening import open_evaluator

    known = {
        name: parameter.annotation
        for name, parameter in inspect.signature(open_evaluator).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    if len(words) % 2:
        raise ValueError(f"{words[-1]} has no value: give pairs of a key and a value")
    options: dict[str, Any] = {}
    for key, word in zip(words[::2], words[1::2], strict=True):
        if key not in known:
            raise ValueError(f"{key} is no option: there are {', '.join(sorted(known))}")
        if key in options:
            raise ValueError(f"{key} is given twice")
        options[key] = _value(key, word, str(known[key]))
    return options


def _value(key: str, word: str, kind: str) -> Any:
    if "bool" in kind:
        if word not in _SWITCH:
            raise ValueError(f"{key} is {word}: it has to be yes or no")
        return _SWITCH[word]
    if "int" in kind:
        if not word.isdecimal():
            raise ValueError(f"{key} is {word}: it has to be a whole number")
        return int(word)
    return word
