"""The rank that leads: it starts or awaits the others, gives them their parts, and tells them every batch."""

import contextlib
import json
import logging
import os
import secrets
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from oarlock.native import quant
from oarlock.native import threads as native_threads
from oarlock.native.adapters import Adapter
from oarlock.native.decoder import Cache, Decoder, Model, Rows
from oarlock.native.ranks import SLOT_BYTES, Ranks, shared_bytes, shared_file

from oarlock.llm.ranks import frames, joining, models
from oarlock.llm.ranks.config import RanksConfig, address, check_token
from oarlock.llm.ranks.members import Members, uninterrupted

LOG = logging.getLogger("oarlock.llm.ranks")
CUT = 8  #: rows that a half of a batch may have more than the other
# The child finds what this process finds, wherever that comes from.
_CHILD = (
    "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); "  # Ctrl-C is the leader's, from the beginning
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from oarlock.llm.ranks import follower; follower.run_local(int(sys.argv[2]), int(sys.argv[3]))"
)


class Team:
    """All ranks of a model, seen by the first. Close it to end the others.

    Args:
        config: how many, and where they come from.

    Raises:
        ValueError: ``listen`` is not an address of this machine.
        TimeoutError: not enough ranks have joined.
    """

    def __init__(self, config: RanksConfig) -> None:
        self.config, self.count = config, config.count
        self._members = Members()
        self._closed = weakref.finalize(self, self._members.end)
        self._session = secrets.token_hex(16)
        self._lost = "the ranks were closed"
        try:
            if config.listen is None:
                self._start()
            else:
                self._await()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        """Followers of this machine."""
        self._members.file = file = shared_file(self.count)
        for rank in range(1, self.count):
            link, theirs = socket.socketpair()
            with theirs:
                numbers = [str(theirs.fileno()), str(file)]
                process = subprocess.Popen(
                    [sys.executable, "-c", _CHILD, json.dumps(sys.path), *numbers],
                    pass_fds=[theirs.fileno(), file],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                )
            self._members.links[rank] = link
            self._members.processes[rank] = process

    def _await(self) -> None:
        """Followers that somebody has started elsewhere."""
        assert self.config.listen is not None
        host, port = address(self.config.listen, name="listen")
        token = check_token(self.config.token)
        try:
            self._members.server = server = joining.listen(host, port)
        except OSError as error:
            raise ValueError(f"listen must be a free address of this machine: {error}.") from error
        LOG.info("waiting at %s:%d for ranks: %d", *server.getsockname()[:2], self.count - 1)
        until = time.monotonic() + self.config.join_s
        for rank in range(1, self.count):
            link, purpose = joining.accept(server, token, session="", until=until)
            self._members.links[rank] = link
            link.settimeout(joining.HELLO_S)
            hello, _ = frames.receive(link, most=frames.SMALL)
            link.settimeout(None)
            self._members.peers.append((link.getpeername()[0], int(hello["port"])))
            LOG.info("rank %d has joined from %s", rank, link.getpeername()[0])

    @property
    def processes(self) -> dict[int, subprocess.Popen]:
        """Followers that were started here, by rank."""
        return self._members.processes

    def threads(self, asked: int | None) -> int:
        """Threads of each rank's kernels: as asked, or all physical cores, which ranks of one machine share."""
        if asked is not None:
            return asked
        cores = native_threads.physical_cores()
        return max(1, cores // self.count) if self.config.listen is None else cores

    def deliver(self, rank: int, model: Model) -> None:
        """Send a follower its part.

        Raises:
            ConnectionError: it is lost.
        """
        fields, arrays = models.pack(model)
        with self._telling():
            link = self._members.links[rank]
            link.settimeout(self.config.join_s)  # for each piece
            with _speaking_of(rank):
                frames.send(link, {"kind": "model", "model": fields}, arrays)

    def begin(
        self, model: Model, most_rows: int, pages: int, format: str
    ) -> tuple["LedDecoder", "LedCache"]:
        """All ranks' decoders and caches, once every follower has its part.

        Args:
            model: the leader's part.
            most_rows: of a batch.
            pages, format: of the caches.

        Raises:
            ValueError: the parts do not fit together.
            ConnectionError: a rank is lost.
        """
        slot_bytes = self._slot_bytes(model, most_rows)
        start = {
            "kind": "start",
            "ranks": self.count,
            "most_rows": most_rows,
            "pages": pages,
            "format": format,
            "slot_bytes": slot_bytes,
            "timeout_s": self.config.timeout_s,
            "session": self._session,
            "peers": self._members.peers,
        }
        with self._telling():
            if self._members.file is not None:
                os.ftruncate(self._members.file, shared_bytes(self.count, slot_bytes))
            for rank, link in self._members.links.items():
                with _speaking_of(rank):
                    answer, _ = frames.receive(link)
                if answer["kind"] != "ready":
                    raise ConnectionError(f"rank {rank} says {answer.get('error')}")
            for rank, link in self._members.links.items():
                link.settimeout(self.config.timeout_s)
                with _speaking_of(rank):
                    frames.send(link, start | {"rank": rank})
            self._members.ranks = ranks = self._connect(slot_bytes)
            decoder = LedDecoder(self, model, most_rows, ranks)
        return decoder, LedCache(self, decoder, pages, format)

    def _slot_bytes(self, model: Model, most_rows: int) -> int:
        """Most of a part: a row of states or logits; over the network also half of a batch, which travels at once."""
        panels = -(-model.vocab // quant.WIDTH)
        row = 4 * max(model.hidden, -(-panels // self.count) * quant.WIDTH)
        half = 0 if self.config.listen is None else 4 * model.hidden * (most_rows // 2 + CUT)
        return max(SLOT_BYTES, -(-max(row, half) // 64) * 64)

    def _connect(self, slot_bytes: int) -> Ranks:
        members, timeout_s = self._members, self.config.timeout_s
        if self.config.listen is None:
            assert members.file is not None
            return Ranks.shared(
                members.file,
                rank=0,
                ranks=self.count,
                watched=members.links,
                slot_bytes=slot_bytes,
                timeout_s=timeout_s,
            )
        assert members.server is not None
        token, links = check_token(self.config.token), dict[int, socket.socket]()
        until = time.monotonic() + timeout_s
        with joining.closing_on_error(links):
            while len(links) < self.count - 1:
                link, purpose = joining.accept(
                    members.server, token, session=self._session, until=until
                )
                links[purpose["rank"]] = link
        members.server.close()
        ranks = Ranks.tcp(
            links, rank=0, ranks=self.count, slot_bytes=slot_bytes, timeout_s=timeout_s
        )
        for link in links.values():
            link.close()
        return ranks

    def tell(self, fields: dict, arrays: Sequence[NDArray] = ()) -> None:
        """Say something to all followers."""
        for rank in self._members.links:
            self.tell_one(rank, fields, arrays)

    def tell_one(self, rank: int, fields: dict, arrays: Sequence[NDArray] = ()) -> None:
        """Say something to one of them."""
        with _speaking_of(rank):
            frames.send(self._members.links[rank], fields, arrays)

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """What goes wrong with a follower ends them all, and says why, now and later."""
        if not self._closed.alive:
            raise ConnectionError(self._lost)
        try:
            with uninterrupted():
                yield
        except ValueError:
            raise  # refused by all ranks alike, before anything was done
        except (OSError, EOFError) as error:
            self._lost = "; ".join([str(error), *self._members.reasons()])
            self.close()
            raise ConnectionError(self._lost) from error
        except KeyboardInterrupt:  # of before or after: all ranks are in step
            raise
        except BaseException as error:
            self._lost = f"the leader failed: {error}"
            self.close()
            raise

    def stats(self) -> dict[str, float]:
        """Of the leader's exchanges, "rank_exchanges" and so on; see ``Ranks.stats``."""
        ranks = self._members.ranks
        return {} if ranks is None else {f"rank_{name}": n for name, n in ranks.stats().items()}

    def close(self) -> None:
        """End all followers."""
        self._closed()


@contextlib.contextmanager
def _speaking_of(rank: int) -> Iterator[None]:
    """Name the rank that something goes wrong with."""
    try:
        yield
    except (OSError, EOFError) as error:
        raise ConnectionError(f"rank {rank} is lost: {error}") from error


class LedDecoder(Decoder):
    """The leader's part of a decoder; what it computes, all ranks compute."""

    def __init__(self, team: Team, model: Model, most_rows: int, ranks: Ranks) -> None:
        super().__init__(model, most_rows, ranks=ranks)
        self._team = team

    def forward(
        self,
        cache: Cache,
        sequences: Sequence[Rows],
        *,
        wanted: Sequence[int] | NDArray[np.integer],
        hidden: bool = False,
        threads: int | None = None,
    ) -> NDArray[np.float32]:
        """As of ``Decoder``, at all ranks."""
        counts = np.array([len(one.tokens) for one in sequences], np.int32)
        tokens = np.concatenate([np.asarray(one.tokens, np.int32) for one in sequences])
        starts = np.array([one.start for one in sequences], np.int32)
        pages = np.full((len(sequences), max(len(one.pages) for one in sequences)), -1, np.int32)
        for row, one in zip(pages, sequences):
            row[: len(one.pages)] = one.pages
        adapters = np.array([one.adapter for one in sequences], np.int32)
        rows = np.asarray(wanted, np.int32)
        fields = {"kind": "forward", "hidden": hidden, "threads": threads}
        with self._team._telling():
            self._team.tell(fields, [tokens, starts, counts, pages, adapters, rows])
            return super().forward(cache, sequences, wanted=wanted, hidden=hidden, threads=threads)

    def load_parts(self, parts: Sequence[Adapter]) -> int:
        """Take an adapter in, of which each rank has its part; its number.

        Raises:
            ValueError: sizes are not the model's.
            ConnectionError: a rank is lost.
        """
        number = super().load_adapter(parts[0])
        with self._team._telling():
            for rank, part in enumerate(parts[1:], 1):
                fields, arrays = models.pack(part)
                self._team.tell_one(
                    rank, {"kind": "load", "number": number, "adapter": fields}, arrays
                )
        return number

    def unload_adapter(self, number: int) -> None:
        """As of ``Decoder``, at all ranks."""
        super().unload_adapter(number)
        with self._team._telling():
            self._team.tell({"kind": "unload", "number": number})


class LedCache(Cache):
    """The leader's part of a cache; pages are copied at all ranks."""

    def __init__(self, team: Team, decoder: LedDecoder, pages: int, format: str) -> None:
        super().__init__(decoder, pages, format)
        self._team = team

    def copy_page(self, source: int, target: int) -> None:
        """As of ``Cache``, at all ranks."""
        super().copy_page(source, target)
        with self._team._telling():
            self._team.tell({"kind": "copy", "source": int(source), "target": int(target)})
