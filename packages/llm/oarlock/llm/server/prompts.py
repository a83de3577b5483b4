"""From messages and texts to the tokens of a prompt."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from oarlock.llm.engine.service import Service
from oarlock.llm.server.errors import bad_request
from oarlock.llm.tokenizers.conversation import RESERVED, Conversations


class Prompts:
    """Makes prompts for a model: its chat template, its tokenizer, its beginning.

    Args:
        service: the model.

    Raises:
        ValueError: the chat template is malformed.
    """

    def __init__(self, service: Service):
        self._service = service
        self._conversations: Conversations | None = None
        if service.chat_template is not None:
            self._conversations = Conversations(
                service.tokenizer, service.chat_template, service.template_tokens
            )

    def names(self, variable: str) -> bool:
        """Whether the chat template takes a variable."""
        source = self._service.chat_template or ""
        return re.search(rf"\b{re.escape(variable)}\b", source) is not None

    @property
    def begin(self) -> tuple[int, ...]:
        """Tokens that the model expects before a text."""
        return self._service.begin

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
        """Tokens of a conversation. See ``Conversations.tokens``.

        Raises:
            APIError: 400, the model has no template, or the template refuses the messages.
        """
        if self._conversations is None:
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
        try:
            return self._conversations.tokens(messages, tools=tools, variables=variables)
        except ValueError as error:
            raise bad_request(f"The model's chat {error}", param="messages") from error
