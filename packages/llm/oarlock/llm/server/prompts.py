"""From messages and texts to the tokens of a prompt."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from oarlock.llm.engine.service import Service
from oarlock.llm.server.errors import bad_request
from oarlock.llm.tokenizers import chat

RESERVED = ("messages", "tools", "add_generation_prompt")
#: Characters of which one that a request does not use marks what must stay text.
MARKS = [chr(code) for code in range(0xF8A0, 0xF8FF)]


class Prompts:
    """Makes prompts for a model: its chat template, its tokenizer, its beginning.

    The spelling of a special token is that token where the template wrote it, and text where a
    message, a tool or a prompt did: no message can end itself and begin another.

    Args:
        service: the model.

    Raises:
        ValueError: the chat template is malformed.
    """

    def __init__(self, service: Service):
        self._service = service
        self._special = dict(service.tokenizer.special_tokens)
        spellings = sorted(self._special, key=len, reverse=True)
        self._split = re.compile("|".join(map(re.escape, spellings)) or r"(?!)")
        if service.chat_template is not None:
            chat.check(service.chat_template)

    def names(self, variable: str) -> bool:
        """Whether the chat template takes a variable."""
        source = self._service.chat_template or ""
        return re.search(rf"\b{re.escape(variable)}\b", source) is not None

    @property
    def begin(self) -> tuple[int, ...]:
        """Tokens that the model expects before a text: its bos_token, unless that is also its end."""
        tokens = self._service.template_tokens
        bos = tokens.get("bos_token")
        if bos is None or bos == tokens.get("eos_token") or bos not in self._special:
            return ()
        return (self._special[bos],)

    def of_text(self, text: str) -> tuple[int, ...]:
        """Tokens of a text to continue."""
        return self.begin + tuple(self._service.tokenizer.encode(text))

    def of_messages(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None,
        variables: Mapping[str, Any],
    ) -> tuple[int, ...]:
        """Tokens of a conversation, up to where the model's answer begins.

        Args:
            messages: as templates expect them: ``role``, ``content``, ``tool_calls`` with arguments as
                objects.
            tools: functions that the model may call; None for none.
            variables: further ones of the template.

        Raises:
            APIError: 400, the model has no template, or the template refuses the messages.
        """
        template = self._service.chat_template
        if template is None:
            raise bad_request(
                "The model has no chat template: use /v1/completions.", code="no_chat_template"
            )
        reserved = [
            name for name in variables if name in RESERVED or name in self._service.template_tokens
        ]
        if reserved:
            raise bad_request(
                f"chat_template_kwargs must not set {', '.join(reserved)}.",
                param="chat_template_kwargs",
            )
        data = {"messages": list(messages), "tools": list(tools) if tools else None, **variables}
        spelt = json.dumps(data, ensure_ascii=False) + template
        mark = next((mark for mark in MARKS if mark not in spelt), None)
        if mark is None:
            raise bad_request("messages must leave one of the characters U+F8A0 to U+F8FE unused.")
        if self._special and self._split.search(spelt):
            data = self._guard(data, mark)
        try:
            tokens: Mapping[str, Any] = self._service.template_tokens
            text = chat.render(template, **data, **tokens)
        except ValueError as error:
            raise bad_request(f"The model's chat {error}", param="messages") from error
        return self._encode(text, mark)

    def _guard(self, value: Any, mark: str) -> Any:
        """``value`` with the id of a special token between two ``mark`` in place of its spelling."""
        if isinstance(value, str):
            return self._split.sub(lambda found: f"{mark}{self._special[found[0]]}{mark}", value)
        if isinstance(value, Mapping):
            return {self._guard(key, mark): self._guard(item, mark) for key, item in value.items()}
        if isinstance(value, list):
            return [self._guard(item, mark) for item in value]
        return value

    def _encode(self, text: str, mark: str) -> tuple[int, ...]:
        spellings = {str(token): name for name, token in self._special.items()}
        marked = re.compile(f"{mark}([0-9]+){mark}")

        def ids_of(part: str) -> list[int]:
            return self._service.tokenizer.encode(
                marked.sub(lambda found: spellings[found[1]], part)
            )

        ids: list[int] = []
        at = 0
        for found in self._split.finditer(text):
            ids += [*ids_of(text[at : found.start()]), self._special[found[0]]]
            at = found.end()
        return tuple(ids + ids_of(text[at:]))
