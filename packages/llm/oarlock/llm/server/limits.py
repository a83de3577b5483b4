"""What a server lets its clients ask for."""

import dataclasses
import math


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of what one request, and all together, may cost.

    Args:
        body_bytes: of a request's body; more is refused with 413.
        prompt_characters: of all texts of a request together, refused before they are tokenised.
        prompt_tokens: of one prompt; None for as many as the model's context holds.
        completion_tokens: of one text; None for as many as the model's context holds.
        texts: that one request may ask for: prompts times ``n``, or inputs to embed.
        concurrency: requests that the engine works on.
        queue: requests that wait for their turn; one more is refused with 429.
        retry_after_s: what a refused client is told to wait, seconds.
        request_s: for a whole request from its body to its last byte, seconds; then 408.
        header_s: for the headers of a request, seconds; then the connection is closed.
        body_s: for its body, seconds; then 408.
        idle_s: between two requests of a connection, seconds; then it is closed.
        write_s: for a client to read what fills the connection's buffer, seconds; then the connection is
            aborted and the request cancelled.
        drain_s: for the requests in flight when the server is asked to stop, seconds; then they are aborted.

    Raises:
        ValueError: a number is not positive (``queue`` and ``drain_s``: negative).
    """

    body_bytes: int = 8 << 20
    prompt_characters: int = 2_000_000
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    texts: int = 128
    concurrency: int = 64
    queue: int = 256
    retry_after_s: float = 1.0
    request_s: float = 600.0
    header_s: float = 10.0
    body_s: float = 30.0
    idle_s: float = 30.0
    write_s: float = 30.0
    drain_s: float = 30.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is None and field.default is None:
                continue
            seconds = field.name.endswith("_s")
            least_is_zero = field.name in ("queue", "drain_s")
            kinds = (int, float) if seconds else (int,)
            number = isinstance(value, kinds) and not isinstance(value, bool)
            if (
                not number
                or not math.isfinite(value)
                or value < 0
                or (value == 0 and not least_is_zero)
            ):
                kind = "a finite number of seconds" if seconds else "an integer"
                least = "0 or more" if least_is_zero else "above 0"
                raise ValueError(f"{field.name} must be {kind}, {least}, got {value!r}.")
