"""The notations of calls, and which one a model's chat template teaches."""

from collections.abc import Container
from typing import Literal, get_args

from oarlock.llm.server.tools.events import Reader
from oarlock.llm.server.tools.readers import LeadingReader, MarkedReader

#: hermes: ``<tool_call>{"name": …, "arguments": {…}}</tool_call>`` (Hermes, Qwen); llama3: the object alone,
#: with "parameters", after ``<|python_tag|>`` or nothing; mistral: a list after ``[TOOL_CALLS]``.
ToolStyle = Literal["hermes", "llama3", "mistral"]
STYLES: tuple[ToolStyle, ...] = get_args(ToolStyle)


def detect_style(template: str | None) -> ToolStyle | None:
    """The notation that a chat template shows; None if it shows none."""
    if template is None or "tools" not in template:
        return None
    if "<tool_call>" in template:
        return "hermes"
    if "[TOOL_CALLS]" in template:
        return "mistral"
    if "<|python_tag|>" in template or '"parameters"' in template:
        return "llama3"
    return None


def reader(style: ToolStyle, names: Container[str]) -> Reader:
    """Finds calls of the functions ``names`` in a text of that notation."""
    if style == "hermes":
        return MarkedReader(names, open_mark="<tool_call>", close_mark="</tool_call>")
    if style == "mistral":
        return LeadingReader(names, marks=("[TOOL_CALLS]",))
    return LeadingReader(names, marks=("<|python_tag|>",))
