"""What a router does and does not do."""

import math
from dataclasses import dataclass, fields
from typing import Literal

Replay = Literal["never", "unanswered", "always"]
REPLAYS: tuple[Replay, ...] = ("never", "unanswered", "always")
HEDGE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """
    Args:
        replay: which requests are sent to another replica when theirs is lost. "never": those that no replica can have
            had, and those whose method is idempotent (GET, PUT…). "unanswered": any of which nothing was forwarded yet,
            for inference can be done again. "always": also broken streams, if the other replica begins with the same
            bytes. A request says it for itself by a header `x-oarlock-replay`.
        most: requests at a time at one replica.
        queue: requests that wait for a replica; more are refused with 429.
        wait_s: that they wait; then 503.
        connect_s: for a connection to a replica.
        hedge_s: without the first byte of an answer, after which the request is sent to another replica as well, and the
            first answer counts; None for never. Only requests that may be sent again.
        stall_s: between two parts of an answer, after which its replica counts as lost for the request.
        answer_s: until an answer begins; then 504.
        losses: replicas that one request may lose (it may be the reason); then 502.
        kept_bytes: of a request's body that are kept to send it again; larger ones are sent once.
        whole_bytes: of an answer of known length that is read whole before the client gets its first byte.

    Raises:
        ValueError: one is not what it should be.
    """

    replay: Replay = "always"
    most: int = 64
    queue: int = 1024
    wait_s: float = 60.0
    connect_s: float = 2.0
    hedge_s: float | None = HEDGE_S
    stall_s: float = 120.0
    answer_s: float = 900.0
    losses: int = 3
    kept_bytes: int = 8 << 20
    whole_bytes: int = 4 << 20

    def __post_init__(self) -> None:
        if self.replay not in REPLAYS:
            raise ValueError(f"replay must be one of {', '.join(REPLAYS)}, not {self.replay!r}")
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "replay" or (field.name == "hedge_s" and value is None):
                continue
            least = 0 if field.name in ("queue", "kept_bytes", "whole_bytes") else 1e-3
            whole = not field.name.endswith("_s")
            if (whole and not isinstance(value, int)) or not math.isfinite(value) or value < least:
                raise ValueError(
                    f"{field.name} must be a {'whole number' if whole else 'number of seconds'}, at least {least:g},"
                    f" not {value!r}"
                )
