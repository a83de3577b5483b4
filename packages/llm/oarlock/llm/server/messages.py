"""Messages of a request as chat templates expect them."""

import json
from collections.abc import Sequence
from typing import Any

from oarlock.llm.server.errors import bad_request
from oarlock.llm.server.schemas.chat import (
    AssistantMessage,
    Content,
    Message,
    SystemMessage,
    ToolMessage,
)


def template_messages(messages: Sequence[Message], template: str) -> list[dict[str, Any]]:
    """Plain texts as contents, and arguments of calls as objects.

    Args:
        messages: of the request.
        template: that will render them; what it calls a system message is one where it knows no
            "developer".

    Raises:
        APIError: 400, a message says nothing, or arguments are no JSON object.
    """
    rendered = []
    for number, message in enumerate(messages):
        where = f"messages.{number}"
        item: dict[str, Any] = {"role": message.role, "content": plain(message.content)}
        if isinstance(message, SystemMessage):
            item["role"] = message.role if message.role in template else "system"
        elif isinstance(message, ToolMessage):
            item["tool_call_id"] = message.tool_call_id
        elif isinstance(message, AssistantMessage):
            if message.content is None and not message.tool_calls:
                raise bad_request(
                    f"{where} must have content or tool_calls.", param=f"{where}.content"
                )
            if message.tool_calls:
                item["tool_calls"] = [
                    {
                        "id": call.id,
                        "type": "function",
                        "function": {
                            "name": call.function.name,
                            "arguments": _arguments(call.function.arguments, where),
                        },
                    }
                    for call in message.tool_calls
                ]
            if message.reasoning_content is not None:
                item["reasoning_content"] = message.reasoning_content
        if not isinstance(message, ToolMessage) and message.name is not None:
            item["name"] = message.name
        rendered.append(item)
    return rendered


def plain(content: Content | None) -> str:
    """The text of a content, which may come in parts."""
    if content is None:
        return ""
    return content if isinstance(content, str) else "".join(part.text for part in content)


def character_count(messages: Sequence[Message]) -> int:
    """Characters of all contents and arguments."""
    count = 0
    for message in messages:
        count += len(plain(message.content))
        if isinstance(message, AssistantMessage):
            count += len(message.reasoning_content or "")
            count += sum(len(call.function.arguments) for call in message.tool_calls or ())
    return count


def _arguments(text: str, where: str) -> dict[str, Any]:
    try:
        arguments = json.loads(text or "{}")
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise bad_request(
            f"{where}: the arguments of a call must be a JSON object.", param=f"{where}.tool_calls"
        )
    return arguments
