"""A rank that follows: it gets its part of the model, and computes what the leader says until the leader is gone."""

import logging
import os
import signal
import socket
import time

from oarlock.native import quant
from oarlock.native import threads as native_threads
from oarlock.native.adapters import Adapter
from oarlock.native.decoder import Cache, Decoder, Model, Rows
from oarlock.native.ranks import Ranks

from oarlock.llm.ranks import frames, joining, models
from oarlock.llm.ranks.config import address, check_token

LOG = logging.getLogger("oarlock.llm.ranks")


def run_local(link: int, file: int) -> None:
    """Follow the process that has started this one.

    Signals of the terminal or of a service manager are the leader's business: whoever it still serves needs its ranks.

    Args:
        link: descriptor of the connection with the leader.
        file: descriptor of the memory that the ranks share.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    leader = socket.socket(fileno=link)

    def connect(start: dict) -> Ranks:
        ranks = Ranks.shared(
            file,
            rank=start["rank"],
            ranks=start["ranks"],
            watched={0: leader},
            slot_bytes=start["slot_bytes"],
            timeout_s=start["timeout_s"],
        )
        os.close(file)
        return ranks

    try:
        follow(leader, connect, threads=None)
    except (
        ConnectionError
    ) as error:  # the leader was told, or has ended itself: who started it knows why
        raise SystemExit(1) from error


def join(
    where: str, token: str | None, *, threads: int | None = None, wait_s: float = 60.0
) -> None:
    """Follow a leader on another machine, until it ends.

    Args:
        where: "host:port" that it listens at.
        token: that it knows.
        threads: of the kernels; None for all physical cores.
        wait_s: how long to try while nobody listens.

    Raises:
        ValueError: an argument is not as above, or the leader does not know the token.
        ConnectionError: nobody listens there, or the leader or another rank is lost.
    """
    host, port = address(where, name="where")
    secret = check_token(token)
    leader = joining.join(host, port, secret, {"kind": "control"}, wait_s=wait_s)
    # Ranks above this one connect to it at the address that the leader sees.
    own = joining.listen(leader.getsockname()[0], 0)
    with leader, own:
        frames.send(leader, {"kind": "hello", "port": own.getsockname()[1]})

        def connect(start: dict) -> Ranks:
            links = _mesh(start, host, port, own, secret)
            ranks = Ranks.tcp(
                links,
                rank=start["rank"],
                ranks=start["ranks"],
                slot_bytes=start["slot_bytes"],
                timeout_s=start["timeout_s"],
            )
            for link in links.values():
                link.close()
            own.close()
            return ranks

        # The leader's number is that of its own machine.
        follow(leader, connect, threads=threads or native_threads.physical_cores())


def _mesh(
    start: dict, host: str, port: int, own: socket.socket, token: bytes
) -> dict[int, socket.socket]:
    """Connect to all lower ranks, and let all higher ones connect to this one."""
    rank, session = start["rank"], start["session"]
    peers = {0: (host, port)}
    peers |= {other: tuple(start["peers"][other - 1]) for other in range(1, rank)}
    links: dict[int, socket.socket] = {}
    with joining.closing_on_error(links):
        for other, (name, number) in peers.items():
            purpose = {"kind": "data", "rank": rank, "session": session}
            links[other] = joining.join(name, number, token, purpose, wait_s=start["timeout_s"])
        until = time.monotonic() + start["timeout_s"]
        while len(links) < start["ranks"] - 1:
            link, purpose = joining.accept(own, token, session=session, until=until)
            links[purpose["rank"]] = link
    return links


def follow(leader: socket.socket, connect, *, threads: int | None) -> None:
    """Obey a leader until it closes the connection.

    Args:
        leader: the connection.
        connect: makes the ``Ranks`` of the leader's "start".
        threads: of the kernels; None for what the leader says.

    Raises:
        ConnectionError: the leader is lost while something was under way.
    """
    try:
        fields, arrays = frames.receive(leader, room=quant.memory)
        model = models.unpack(fields["model"], arrays, Model)
        del arrays
        frames.send(leader, {"kind": "ready"})
        start, _ = frames.receive(leader)
        _compute(leader, model, start, connect(start), threads)
    except EOFError:
        LOG.info("the leader has ended")
    except Exception as error:
        _tell(leader, error)
        raise


def _compute(
    leader: socket.socket, model: Model, start: dict, ranks: Ranks, threads: int | None
) -> None:
    decoder = Decoder(model, start["most_rows"], ranks=ranks)
    cache = Cache(decoder, start["pages"], start["format"])
    while True:
        fields, arrays = frames.receive(leader)
        if fields["kind"] == "copy":
            cache.copy_page(fields["source"], fields["target"])
            continue
        if fields["kind"] == "load":
            number = decoder.load_adapter(models.unpack(fields["adapter"], arrays, Adapter))
            if number != fields["number"]:
                raise RuntimeError(f"adapter {number} is {fields['number']} at the leader")
            continue
        if fields["kind"] == "unload":
            decoder.unload_adapter(fields["number"])
            continue
        tokens, starts, counts, pages, adapters, wanted = arrays
        ends = counts.cumsum()
        rows = [
            Rows(tokens[end - count : end], int(at), own, int(adapter))
            for end, count, at, own, adapter in zip(ends, counts, starts, pages, adapters)
        ]
        try:
            decoder.forward(
                cache,
                rows,
                wanted=wanted,
                hidden=fields["hidden"],
                threads=threads or fields["threads"],
            )
        except ValueError as error:  # nothing was begun: the leader's call was refused just so
            LOG.warning("a batch was refused: %s", error)


def _tell(leader: socket.socket, error: Exception) -> None:
    try:
        leader.settimeout(1.0)
        frames.send(leader, {"kind": "failed", "error": f"{type(error).__name__}: {error}"})
    except OSError:
        LOG.info("the leader cannot be told: it has ended")
