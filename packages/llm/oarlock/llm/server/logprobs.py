"""Log-probabilities in the two shapes of OpenAI's interfaces."""

from collections.abc import Sequence
from typing import Any

from oarlock.llm.engine.outputs import TokenLogprob
from oarlock.llm.server.tokens import TokenTexts


def chat_logprobs(found: Sequence[TokenLogprob], texts: TokenTexts) -> dict[str, Any]:
    """As chat completions have them: a list of objects."""

    def one(token: int, logprob: float) -> dict[str, Any]:
        return {"token": texts.text(token), "logprob": logprob, "bytes": texts.bytes(token)}

    return {
        "content": [
            one(item.token, item.logprob) | {"top_logprobs": [one(*top) for top in item.top]}
            for item in found
        ],
        "refusal": None,
    }


class CompletionLogprobsBuilder:
    """As completions have them: four lists of equal length, and offsets into the text.

    Args:
        texts: of tokens.
    """

    def __init__(self, texts: TokenTexts):
        self._texts = texts
        self._offset = 0

    def unscored(self, tokens: Sequence[int]) -> dict[str, Any]:
        """Tokens that nothing is known of: the first of a prompt."""
        return self._lists([(token, None, None) for token in tokens])

    def scored(self, found: Sequence[TokenLogprob]) -> dict[str, Any]:
        """The next tokens."""
        return self._lists(
            [
                (
                    item.token,
                    item.logprob,
                    {self._texts.text(token): value for token, value in item.top},
                )
                for item in found
            ]
        )

    def _lists(
        self, items: Sequence[tuple[int, float | None, dict[str, float] | None]]
    ) -> dict[str, Any]:
        tokens, offsets = [], []
        for token, _, _ in items:
            tokens.append(self._texts.text(token))
            offsets.append(self._offset)
            self._offset += len(tokens[-1])
        return {
            "tokens": tokens,
            "token_logprobs": [logprob for _, logprob, _ in items],
            "top_logprobs": [top for _, _, top in items],
            "text_offset": offsets,
        }


def joined(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The lists of several parts of a text, one after the other."""
    return {key: [item for part in parts for item in part[key]] for key in parts[0]}
