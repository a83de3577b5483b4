"""Where items come from: readers of public data sets, and generators, by name.

A reader takes a finder of data folders and the options of a task's file, and gives one dictionary an item. The
same options give the same items everywhere: generators take a seed.
"""

from collections.abc import Callable
from typing import Any

from oarlock.llm.eval.data import Finder
from oarlock.llm.eval.sources import (
    arithmetic,
    bfcl,
    corpora,
    exams,
    instructions,
    long_context,
    programs,
    reasoning,
    safety,
    word_problems,
)

Rows = list[dict[str, Any]]

READERS: dict[str, Callable[..., Rows]] = {
    "agieval": exams.agieval,
    "arithmetic": arithmetic.make,
    "bbh": reasoning.bbh,
    "bfcl": bfcl.read,
    "coin_flip": reasoning.coin_flip,
    "commonsense_qa": reasoning.commonsense_qa,
    "corpus": corpora.documents,
    "gsm8k": word_problems.gsm8k,
    "hh_rlhf": safety.preferences,
    "injection": safety.injection,
    "instructions": instructions.make,
    "last_letters": reasoning.last_letters,
    "multi_hop": long_context.multi_hop,
    "needle": long_context.needle,
    "next_line": corpora.next_line,
    "next_sentence": corpora.next_sentence,
    "programs": programs.make,
    "recall": long_context.recall,
    "refusals": safety.refusals,
    "strategy_qa": reasoning.strategy_qa,
    "word_problems": word_problems.small,
}


def read(reader: str, data: Finder, options: dict[str, Any]) -> Rows:
    """Items of the reader ``reader``.

    Raises:
        ValueError: there is no such reader, or it does not take these options.
        DataMissing: the data set is not here.
    """
    if reader not in READERS:
        raise ValueError(f"no reader is named {reader!r}; known: {', '.join(READERS)}.")
    try:
        return READERS[reader](data, **options)
    except TypeError as error:
        if "argument" not in str(error):
            raise
        raise ValueError(f"reader {reader}: {error}") from error
