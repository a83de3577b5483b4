"""From messages to the tokens of a prompt, so that no message can write special tokens."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from oarlock.llm.tokenizers import chat
from oarlock.llm.tokenizers.base import Tokenizer

RESERVED = ("messages", "tools", "add_generation_prompt", "now")
#: Characters of which one that a conversation does not use marks what must stay text.
MARKS = [chr(code) for code in range(0xF8A0, 0xF8FF)]


class Conversations:
    """Renders a model's chat template and encodes what comes out.

    The spelling of a special token is that token where the template wrote it, and text where a
    message or a tool did: no message can end itself and begin another.

    Args:
        tokenizer: of the model.
        template: Jinja source.
        template_tokens: spellings that the template may name, such as "bos_token".

    Raises:
        ValueError: the template is malformed.
    """

    def __init__(
        self, tokenizer: Tokenizer, template: str, template_tokens: Mapping[str, str]
    ) -> None:
        chat.check(template)
        self.template, self._tokens, self._tokenizer = template, template_tokens, tokenizer
        self._special = dict(tokenizer.special_tokens)
        spellings = sorted(self._special, key=len, reverse=True)
        self._split = re.compile("|".join(map(re.escape, spellings)) or r"(?!)")

    def tokens(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Any] = {},
    ) -> tuple[int, ...]:
        """Tokens of a conversation, up to where the model's answer begins.

        Args:
            messages: as templates expect them: ``role``, ``content``, ``tool_calls`` with arguments as
                objects.
            tools: functions that the model may call; None for none.
            variables: further ones of the template.

        Raises:
            ValueError: the template refuses the messages, a variable is the template's own, or the
                messages use all characters that could mark them.
        """
        reserved = [name for name in variables if name in RESERVED or name in self._tokens]
        if reserved:
            raise ValueError(f"variables must not set {', '.join(reserved)}.")
        data = {"messages": list(messages), "tools": list(tools) if tools else None, **variables}
        spelt = json.dumps(data, ensure_ascii=False) + self.template
        mark = next((mark for mark in MARKS if mark not in spelt), None)
        if mark is None:
            raise ValueError("messages must leave one of the characters U+F8A0 to U+F8FE unused.")
        if self._special and self._split.search(spelt):
            data = self._guard(data, mark)
        given: dict[str, Any] = data | dict(self._tokens)
        return self._encode(chat.render(self.template, given.pop("messages"), **given), mark)

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
            return self._tokenizer.encode(marked.sub(lambda found: spellings[found[1]], part))

        ids: list[int] = []
        at = 0
        for found in self._split.finditer(text):
            ids += [*ids_of(text[at : found.start()]), self._special[found[0]]]
            at = found.end()
        return tuple(ids + ids_of(text[at:]))
