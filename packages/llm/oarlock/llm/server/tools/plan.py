"""Which functions a request lets the model call, and how it is held to that."""

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

from oarlock.llm.engine.params import Constraint
from oarlock.llm.server.errors import bad_request
from oarlock.llm.server.sampling import schema_constraint
from oarlock.llm.server.schemas.chat import ChatRequest, NamedToolChoice, Tool
from oarlock.llm.server.tools.events import PlainReader, Reader
from oarlock.llm.server.tools.readers import ArgumentsReader, LeadingReader
from oarlock.llm.server.tools.styles import ToolStyle, reader


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ToolPlan:
    """How a request's texts are read.

    Args:
        style: of calls that the model makes by itself; None where there are none.
        shown: the tools in the prompt; None for none.
        names: of the functions.
        named: the one that must be called.
        required: whether one must be called.
        constraint: that makes sure of it.
        parallel: whether a text may have several calls.
    """

    style: ToolStyle | None = None
    shown: list[dict[str, Any]] | None = None
    names: frozenset[str] = frozenset()
    named: str | None = None
    required: bool = False
    constraint: Constraint | None = None
    parallel: bool = True

    def reader(self) -> Reader:
        """For one text."""
        if self.named is not None:
            return ArgumentsReader(self.named)
        if self.required:
            return LeadingReader(self.names)
        if self.style is not None:
            return reader(self.style, self.names)
        return PlainReader()


def plan_tools(
    request: ChatRequest, *, style: ToolStyle | None, template_has_tools: bool
) -> ToolPlan:
    """What ``tools``, ``tool_choice`` and ``parallel_tool_calls`` ask for.

    "auto" reads calls as the model's chat template teaches them. A named function makes the text
    its arguments, by their schema; "required" makes it a JSON list of calls.

    Args:
        request: with its tools.
        style: of the model's calls; None if it is not known.
        template_has_tools: whether the chat template shows them to the model.

    Raises:
        APIError: 400, the fields contradict each other or ask for what the model cannot do.
    """
    tools, choice = request.tools or [], request.tool_choice
    if not tools:
        if choice not in (None, "none", "auto"):
            raise bad_request("tool_choice needs tools to choose from.", param="tool_choice")
        return ToolPlan()
    names = [tool.function.name for tool in tools]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise bad_request(f"tools must have different names, got {twice[0]} twice.", param="tools")
    if choice == "none":
        return ToolPlan()
    if not template_has_tools:
        raise bad_request(
            "The model's chat template has no place for tools: describe them in a message, and use "
            "response_format for the answer.",
            param="tools",
            code="tools_not_supported",
        )
    shown = [tool.model_dump(exclude_none=True) for tool in tools]
    common: dict[str, Any] = {
        "shown": shown,
        "names": frozenset(names),
        "parallel": request.parallel_tool_calls is not False,
    }
    if isinstance(choice, NamedToolChoice):
        name = choice.function.name
        if name not in names:
            raise bad_request(
                f"tool_choice must name one of the tools, {', '.join(names)}, got {name}.",
                param="tool_choice",
            )
        schema = _parameters(tools[names.index(name)])
        return ToolPlan(named=name, constraint=schema_constraint(schema), **common)
    if choice == "required":
        schema = _list_of_calls(tools, parallel=common["parallel"])
        return ToolPlan(required=True, constraint=schema_constraint(schema), **common)
    if style is None:
        raise bad_request(
            "How this model writes calls is not known: use tool_choice with a name or 'required', or "
            "start the server with a tool style.",
            param="tool_choice",
            code="tools_not_supported",
        )
    return ToolPlan(style=style, **common)


def _parameters(tool: Tool) -> dict[str, Any]:
    return tool.function.parameters or {"type": "object", "properties": {}}


def _list_of_calls(tools: Sequence[Tool], *, parallel: bool) -> dict[str, Any]:
    """Schema of a list of one or more calls, each with the arguments of its function."""
    definitions: dict[str, Any] = {}
    calls = []
    for tool in tools:
        name = tool.function.name
        schema = copy.deepcopy(_parameters(tool))
        for key in ("$defs", "definitions"):
            for inner, definition in schema.pop(key, {}).items():
                definitions[f"{name}.{inner}"] = _move(definition, name)
        calls.append(
            {
                "type": "object",
                "properties": {"name": {"const": name}, "arguments": _move(schema, name)},
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
        )
    whole = {"type": "array", "items": {"anyOf": calls}, "minItems": 1}
    if not parallel:
        whole["maxItems"] = 1
    return whole | ({"$defs": definitions} if definitions else {})


def _move(value: Any, name: str) -> Any:
    """``value`` with its references to definitions led to where `_list_of_calls` puts them."""
    if isinstance(value, list):
        return [_move(item, name) for item in value]
    if not isinstance(value, dict):
        return value
    moved = {key: _move(item, name) for key, item in value.items()}
    target = moved.get("$ref")
    if isinstance(target, str):
        head, _, inner = target.rpartition("/")
        if head not in ("#/$defs", "#/definitions"):
            raise bad_request(
                f"tools: a $ref in the parameters of {name} must be #/$defs/…, got {target}.",
                param="tools",
            )
        moved["$ref"] = f"#/$defs/{name}.{inner}"
    return moved
