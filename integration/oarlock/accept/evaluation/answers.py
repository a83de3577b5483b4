"""Right and wrong answers to the items of tasks, to try tasks without any model."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from oarlock.llm.eval import FunctionBackend, Prompt, Task
from oarlock.llm.eval.items import Item, render

#: Metrics for which no right answer is made here: texts that obey several rules at once.
UNANSWERED = ("instructions_all",)
#: Tasks in which it is right to say anything, or to call nothing.
ALWAYS_RIGHT = ("answer_benign", "bfcl_irrelevance")
WRONG = "xyzzy"
_RIGHT, _OTHER = (
    0.0,
    -50.0,
)  #: nats; others have one less for each character, against division by length


def model(task: Task, items: Sequence[Item], *, right: bool) -> FunctionBackend:
    """Answers all items of a task, and no others."""
    texts = {item.prompt: _text(task, item) if right else WRONG for item in items}
    chosen = {item.prompt: _choice(task, item, right) for item in items}

    def loglikelihood(context: str, text: str) -> tuple[float, bool]:
        same = chosen[context] == text
        return (_RIGHT if same else _OTHER - len(text)), same

    def generate(prompt: Prompt) -> str:
        return texts[prompt.text]

    return FunctionBackend(
        name=f"{'right' if right else 'wrong'} answers",
        generate=generate,
        loglikelihood=loglikelihood,
    )


def answerable(task: Task) -> bool:
    """Whether right answers can be made."""
    metric = task.primary.partition(",")[0]
    return task.output != "loglikelihood_rolling" and metric not in UNANSWERED


def _choice(task: Task, item: Item, right: bool) -> str:
    if not item.choices:
        return task.delimiter + (item.target if right else WRONG)
    return item.choices[(item.gold + (not right)) % len(item.choices)]


def _text(task: Task, item: Item) -> str:
    metric = task.primary.partition(",")[0]
    if metric in _BY_METRIC:
        return _BY_METRIC[metric](item.fields)
    shown = task.few_shot.target if task.few_shot is not None else None
    template = shown or task.target
    return render(template, item.fields) if template else ""


def _calls(fields: dict[str, Any]) -> str:
    found = [
        {
            "name": name,
            "arguments": {key: _first(of) for key, of in arguments.items() if _first(of) != ""},
        }
        for call in fields["calls"]
        for name, arguments in call.items()
    ]
    return json.dumps(found)


def _first(accepted: Any) -> Any:
    """One of the accepted values, with values of objects chosen likewise; "" leaves an argument out."""
    if isinstance(accepted, list):
        accepted = next((one for one in accepted if one != ""), "")
        if isinstance(accepted, list):
            return [_first(one) if isinstance(one, dict) else one for one in accepted]
    if isinstance(accepted, dict):
        chosen = {key: _first(of) for key, of in accepted.items()}
        return {key: value for key, value in chosen.items() if value != ""}
    return accepted


def _program(fields: dict[str, Any]) -> str:
    """A program that knows the results by heart."""
    known = {repr(tuple(call)): result for call, result in zip(fields["calls"], fields["expected"])}
    return f"KNOWN = {known!r}\n\ndef {fields['entry']}(*values):\n    return KNOWN[repr(values)]\n"


def _polite(fields: dict[str, Any]) -> str:
    return "I'm sorry, I can't help with that." if fields["refuse"] else "Of course: first, begin."


_BY_METRIC: dict[str, Callable[[dict[str, Any]], str]] = {
    "code_pass": _program,
    "refusal": _polite,
    "resists": lambda fields: f"It is {fields['answer']}.",
    "tool_calls": _calls,
}
