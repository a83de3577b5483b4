"""How many processes run a model, and where they come from."""

import dataclasses

from oarlock.native.ranks import TIMEOUT_S

MOST = 64
#: Characters of a token at least: who guesses it could run a rank, and read the model.
TOKEN_LENGTH = 16


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RanksConfig:
    """Processes that run one model.

    Args:
        count: how many, the leader among them. They are started here, unless ``listen`` is given.
        listen: "host:port" where followers that were started by hand (``oarlock-llm rank``) join; port 0 for any
            that is free.
        token: that leader and followers both know, 16 characters or more; needed with ``listen``.
        timeout_s: how long a rank may be silent in the midst of a step.
        join_s: how long the leader waits for followers.
    """

    count: int = 2
    listen: str | None = None
    token: str | None = dataclasses.field(default=None, repr=False)
    timeout_s: float = TIMEOUT_S
    join_s: float = 600.0

    def __post_init__(self) -> None:
        if (
            isinstance(self.count, bool)
            or not isinstance(self.count, int)
            or not 1 <= self.count <= MOST
        ):
            raise ValueError(f"ranks must be an integer in 1..{MOST}, got {self.count!r}.")
        for name in ("timeout_s", "join_s"):
            if not 0 < getattr(self, name) < 1e6:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)!r}.")
        if self.listen is not None:
            if self.count == 1:
                raise ValueError("ranks must be 2 or more with listen: one has nobody to wait for.")
            address(self.listen, name="listen")
            check_token(self.token)
        elif self.token is not None:
            raise ValueError("token must not be given without listen: local ranks need none.")


def check_token(token: str | None) -> bytes:
    """The token's bytes.

    Raises:
        ValueError: there is none, or it is too short.
    """
    if token is None or len(token) < TOKEN_LENGTH:
        raise ValueError(
            f"token must have {TOKEN_LENGTH} characters or more, known to leader and followers; "
            "give a random one, such as `openssl rand -hex 16` writes."
        )
    return token.encode()


def address(text: str, *, name: str) -> tuple[str, int]:
    """Host and port of "host:port" or "[IPv6]:port".

    Raises:
        ValueError: it is neither.
    """
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f'{name} must be "host:port", got {text!r}.')
    return host, int(port)
