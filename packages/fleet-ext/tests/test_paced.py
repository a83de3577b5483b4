"""A network of paced sockets: what its links let through, and that programs do not notice otherwise."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from oarlock.fleet_ext.lab import LabUnavailable, Process, keeper, paced, quota
from oarlock.fleet_ext.lab.paced import Paced, PacedHost
from oarlock.fleet_ext.lab.paced_relay import BURST, CARRIED

#: What runs on hosts: `peer.py <role> …`. Ports are told by their owner, on its first line.
PEER = """
import errno, hashlib, select, socket, sys, time

role, arguments = sys.argv[1], sys.argv[2:]


def listen():
    door = socket.create_server(("127.0.0.1", 0))
    print(door.getsockname()[1], flush=True)
    return door.accept()[0]


if role == "sink":  # how many bytes it got, their sum, and when it had all
    connection, count, found = listen(), 0, hashlib.sha256()
    while data := connection.recv(1 << 18):
        found.update(data)
        count += len(data)
    print(count, found.hexdigest(), time.monotonic(), flush=True)
    connection.sendall(b"all")
elif role == "source":  # port, bytes, family: when it began, and the sum of what it sent
    size, data = int(arguments[1]), bytearray()
    while len(data) < size:
        data += hashlib.sha256(len(data).to_bytes(8, "little")).digest()
    begin = time.monotonic()
    mapped = arguments[2] == "mapped"
    connection = socket.socket(socket.AF_INET6 if mapped else socket.AF_INET)
    connection.setblocking(False)
    to = ("::ffff:127.0.0.1" if mapped else "127.0.0.1", int(arguments[0]))
    if connection.connect_ex(to) not in (0, errno.EINPROGRESS):
        sys.exit("not connected")
    view = memoryview(data)[:size]
    expected = hashlib.sha256(view).hexdigest()
    while len(view):  # first little by little; as programs do that wait for many sockets
        select.select([], [connection], [])
        small = size - len(view) < 100_000
        view = view[connection.send(view[:500] if small else view) :]
    connection.shutdown(socket.SHUT_WR)
    connection.setblocking(True)
    print(begin, expected, connection.recv(3).decode(), flush=True)
elif role == "echo":
    connection = listen()
    while data := connection.recv(1 << 16):
        connection.sendall(data)
elif role == "ping":  # port, times: the seconds of the shortest round trip
    connection, least = socket.create_connection(("127.0.0.1", int(arguments[0]))), 1e9
    for _ in range(int(arguments[1])):
        begin = time.monotonic()
        connection.sendall(b".")
        connection.recv(1)
        least = min(least, time.monotonic() - begin)
    print(least, flush=True)
elif role == "holds":  # port: until the other end goes
    connection = socket.create_connection(("127.0.0.1", int(arguments[0])))
    print("connected", flush=True)
    print(repr(connection.recv(1)), flush=True)
elif role == "tries":  # address, port
    try:
        socket.create_connection((arguments[0], int(arguments[1]))).close()
        print("connected", flush=True)
    except OSError as error:
        print(errno.errorcode[error.errno], flush=True)
"""


@pytest.fixture(scope="module")
def machine() -> None:
    """Skips the test where sockets cannot be paced."""
    try:
        with Paced(1, rate=100e6):
            pass
    except LabUnavailable as error:
        pytest.skip(str(error))


class Peers:
    """Starts `peer.py` on hosts."""

    def __init__(self, folder: Path) -> None:
        self.script = folder / "peer.py"
        self.script.write_text(PEER)
        self.count = 0

    def __call__(self, host: PacedHost, *arguments: object) -> Process:
        self.count += 1
        argv = [sys.executable, "-I", "-S", str(self.script), *map(str, arguments)]
        return host.start(argv, log=self.script.parent / f"{self.count}.log")


@pytest.fixture
def peer(machine: None, tmp_path: Path) -> Iterator[Peers]:
    yield Peers(tmp_path)


def line(process: Process, number: int) -> list[str]:
    """The words of a line, as soon as it is there."""
    deadline = time.monotonic() + 120
    while (said := process.log.read_text()).count("\n") <= number:
        assert time.monotonic() < deadline and process.poll() in (None, 0), said
        time.sleep(0.01)
    return said.splitlines()[number].split()


def sent(peer: Peers, ways: list[tuple[PacedHost, PacedHost]], size: int, family: str = "") -> float:  # fmt: skip
    """Seconds from the first byte of all to the last, for `size` bytes each way, which arrive as they were sent."""
    sinks = [peer(to, "sink") for _, to in ways]
    sources = [
        peer(host, "source", line(sink, 0)[0], size, family)
        for (host, _), sink in zip(ways, sinks, strict=True)
    ]
    begins, ends = [], []
    for source, sink in zip(sources, sinks, strict=True):
        begin, expected, answer = line(source, 0)
        count, found, end = line(sink, 1)
        assert (int(count), found, answer) == (size, expected, "all")
        begins.append(float(begin))
        ends.append(float(end))
    return max(ends) - min(begins)


def least(rate: float, size: int) -> float:
    """Seconds below which no link of the rate carries so many bytes: a lower bound, whatever the machine does."""
    return 8 * size / (rate * CARRIED) - 2 * BURST


@pytest.mark.parametrize(("family", "delay"), [("", 0.0), ("mapped", 0.0), ("", 0.05)])
def test_bytes_arrive_unharmed_and_no_sooner_than_the_rate_says(
    peer: Peers, family: str, delay: float
) -> None:
    with Paced(2, rate=80e6, delay=delay) as network:
        first, second = network.hosts
        seconds = sent(peer, [(first, second)], 4_000_001, family)
        assert seconds >= least(80e6, 4_000_001) + delay


def test_a_link_is_shared_by_all_connections_of_a_host(peer: Peers) -> None:
    with Paced(3, rate=80e6) as network:
        first, second, third = network.hosts
        upload = sent(peer, [(first, second), (first, third), (first, third)], 1_000_000)
        assert upload >= least(80e6, 3_000_000)
        download = sent(peer, [(first, third), (second, third)], 1_500_000)
        assert download >= least(80e6, 3_000_000)


def test_delay_is_one_way(peer: Peers) -> None:
    with Paced(2, rate=100e6, delay=0.02) as network:
        first, second = network.hosts
        port = line(peer(second, "echo"), 0)[0]
        assert float(line(peer(first, "ping", port, 5), 0)[0]) >= 0.04


def test_what_is_on_one_host_has_no_link(peer: Peers) -> None:
    with Paced(1, rate=100e6, delay=5.0) as network:
        port = line(peer(network.hosts[0], "echo"), 0)[0]
        assert float(line(peer(network.hosts[0], "ping", port, 5), 0)[0]) < 5.0


def test_a_lost_process_ends_its_connections(peer: Peers) -> None:
    with Paced(2, rate=100e6) as network:
        first, second = network.hosts
        echo = peer(second, "echo")
        other = peer(first, "holds", line(echo, 0)[0])
        assert line(other, 0) == ["connected"]
        echo.kill()
        other.wait(60)
        said = other.log.read_text()
        assert "b''" in said or "ConnectionResetError" in said
        # And nobody listens any more.
        assert line(peer(first, "tries", "127.0.0.1", line(echo, 0)[0]), 0) == ["ECONNREFUSED"]


def test_hosts_reach_each_other_and_nothing_else(peer: Peers) -> None:
    with Paced(1, rate=100e6) as network, socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        assert line(peer(network.hosts[0], "tries", "127.0.0.1", port), 0) == ["ECONNREFUSED"]
        assert line(peer(network.hosts[0], "tries", "::1", port), 0) == ["ENETUNREACH"]


def test_nothing_is_left(peer: Peers) -> None:
    with Paced(1, rate=100e6) as network:
        echo = peer(network.hosts[0], "echo")
        line(echo, 0)
        folder, name = Path(network._folder.name), network.name
        assert network._relay is not None
        relay = network._relay.pid
        with pytest.raises(RuntimeError, match="begun"):
            network.__enter__()
    assert not folder.exists() and keeper.quotas(name) == [] and network.hosts == []
    assert keeper.start_of(echo.pid) is None and keeper.start_of(relay) is None


def test_the_relay_ends_with_its_owner(machine: None) -> None:
    script = (
        "import sys, time; from oarlock.fleet_ext.lab.paced import Paced\n"
        "with Paced(1, rate=1e8) as network: print(network._relay.pid, network._folder.name, flush=True); time.sleep(600)"
    )
    owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    relay, folder = owner.stdout.readline().split()
    owner.kill()
    owner.communicate()
    deadline = time.monotonic() + 60
    while keeper.start_of(int(relay)) is not None:
        assert time.monotonic() < deadline, "the relay goes on"
        time.sleep(0.01)
    assert not Path(folder).exists()


def test_a_relay_that_ends_is_told(machine: None) -> None:
    with pytest.raises(RuntimeError, match="relay"):
        with Paced(1, rate=100e6) as network:
            assert network._relay is not None
            os.kill(network._relay.pid, signal.SIGKILL)
            network._relay.wait()


def test_without_a_compiler_it_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None)
    with pytest.raises(LabUnavailable, match="C compiler"):
        Paced(1, rate=100e6).__enter__()


def test_what_cannot_be_compiled_is_unavailable(
    machine: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "wrong.c").write_text("int connect(")
    monkeypatch.setattr(paced, "SOURCE", tmp_path / "wrong.c")
    with pytest.raises(LabUnavailable, match="compiled: .*error"):
        Paced(1, rate=100e6).__enter__()


def test_what_is_not_preloaded_is_unavailable(
    machine: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "idle.c").write_text("int of_no_use;")
    monkeypatch.setattr(paced, "SOURCE", tmp_path / "idle.c")
    with pytest.raises(LabUnavailable, match="preloaded"):
        Paced(1, rate=100e6).__enter__()


def test_shares_that_are_refused_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota, "cpu_tree", lambda: None)
    assert "not mounted" in str(quota.shares_unavailable())


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"hosts": 0, "rate": 1e6}, "hosts"),
        ({"hosts": 2.5, "rate": 1e6}, "hosts"),
        ({"rate": None}, "rate"),
        ({"rate": 100.0}, "rate"),
        ({"rate": 1e6, "delay": -0.1}, "delay"),
        ({"rate": 1e6, "delay": float("nan")}, "delay"),
    ],
)
def test_bad_arguments(arguments: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(named)}="):
        Paced(**arguments)  # type: ignore[arg-type]


def test_bad_arguments_on_a_host(machine: None, tmp_path: Path) -> None:
    with Paced(1, rate=100e6) as network:
        start, log = network.hosts[0].start, tmp_path / "log"
        for named, argv, path, cpus in (
            ("argv", [], log, None),
            ("argv[0]", ["no-such-program"], log, None),
            ("log", ["ls"], tmp_path / "nowhere" / "log", None),
            ("cpus", ["ls"], log, 0.0),
        ):
            with pytest.raises(ValueError, match=f"^{re.escape(named)}="):
                start(argv, log=path, cpus=cpus)
        assert not log.exists()
