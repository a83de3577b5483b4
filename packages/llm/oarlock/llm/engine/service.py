"""What a server needs of an engine: requests in, texts out as they grow, from any thread or event loop."""

from collections.abc import AsyncIterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from oarlock.llm.engine.outputs import Delta
from oarlock.llm.engine.params import Request
from oarlock.llm.tokenizers import Tokenizer


class Overloaded(RuntimeError):
    """As many requests wait as may; try again later."""


class Failed(RuntimeError):
    """Nothing can be computed any more: another process of the model is lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """The model behind a service.

    Args:
        name: as clients call it.
        family: of `oarlock.llm.models`.
        parameters: number of weights.
        weights: format, such as "int8".
        max_length: tokens of prompt and text together.
        adapters: names of LoRA adapters that requests may ask for.
    """

    name: str
    family: str
    parameters: int
    weights: str
    max_length: int
    adapters: tuple[str, ...] = ()


class Stream(AsyncIterable[Delta], Protocol):
    """The deltas of one request; ends after the last text's last one, or with ``Failed``."""

    async def __anext__(self) -> Delta: ...

    async def accepted(self) -> None:
        """Wait until the request is taken in.

        Raises:
            ValueError: it is refused after all (constraint, an adapter that has gone).
            Failed: nothing can be computed any more.
        """

    def cancel(self) -> None:
        """Stop the request; its texts end with "abort". Nothing happens if it has ended."""


class Service(Protocol):
    """A model that runs in a thread of its own."""

    @property
    def about(self) -> About:
        """What it runs now."""

    tokenizer: Tokenizer
    #: Jinja source that makes a prompt of messages; None where the model has none.
    chat_template: str | None
    #: What the template may name besides messages: "bos_token", "eos_token".
    template_tokens: Mapping[str, str]
    #: Tokens that a text to continue begins with, where the model wants any.
    begin: tuple[int, ...]
    #: The author's defaults by the names of sampling parameters.
    generation: Mapping[str, Any]

    def submit(self, request: Request) -> Stream:
        """Hand in a request, in a running event loop.

        Raises:
            ValueError: the request does not fit the model (length, token ids, adapter); what takes
                longer to see, ``Stream.accepted`` tells.
            Overloaded: too many wait.
            Failed: nothing can be computed any more.
        """

    async def embed(self, prompts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Mean of the last hidden states over each prompt's tokens, to length 1, [prompts, D].

        Raises:
            ValueError: a prompt is empty or too long.
            Failed: nothing can be computed any more.
        """

    def stats(self) -> Mapping[str, float]:
        """Numbers of the moment and since the start, such as "requests_running", "tokens_generated".

        "failed" is 1 where nothing can be computed any more.
        """

    async def drain(self, timeout_s: float) -> bool:
        """Take no more requests and wait for the others; whether all ended in time (the rest is aborted)."""

    def close(self) -> None:
        """End what runs; nothing is served afterwards."""
