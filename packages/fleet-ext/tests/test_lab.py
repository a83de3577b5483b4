"""The emulated cluster: rates, delays, faults, quotas, and that nothing of it is left."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from oarlock.fleet_ext import lab
from oarlock.fleet_ext.lab import cluster, commands, keeper

PORT = 7000
#: What runs on hosts: `peer.py <role> …`. Priorities are raised so that a busy machine, or tests run
#: at a low priority, do not matter for rates.
PEER = """
import os, socket, sys, time

os.setpriority(os.PRIO_PROCESS, 0, -10)
role, arguments = sys.argv[1], sys.argv[2:]


def connect(address, port):
    for _ in range(200):
        try:
            return socket.create_connection((address, int(port)), timeout=10)
        except ConnectionRefusedError:
            time.sleep(0.02)
    raise TimeoutError("nobody listens")


def listen(port):
    return socket.create_server(("", int(port))).accept()[0]


if role == "sink":  # port, seconds: the bit/s it gets, after a while
    connection, seconds = listen(arguments[0]), float(arguments[1])
    buffer, begin, size, first = bytearray(1 << 20), None, 0, time.monotonic()
    while got := connection.recv_into(buffer):
        now = time.monotonic()
        if begin is None:
            begin = now if now - first > 0.7 else None
        else:
            size += got
            if now - begin > seconds:
                break
    print(8 * size / (now - begin), flush=True)
    os._exit(0)
elif role == "source":  # address, port
    connection = connect(*arguments)
    connection.settimeout(None)
    try:
        while True:
            connection.sendall(bytes(1 << 18))
    except ConnectionError:
        pass
elif role == "echo":  # port
    connection = listen(*arguments)
    while received := connection.recv(1):
        connection.sendall(received)
elif role == "ping":  # address, port: the seconds of each round trip, for ever
    connection = connect(*arguments)
    connection.settimeout(None)
    while True:
        begin = time.monotonic()
        connection.sendall(b".")
        if not connection.recv(1):
            raise ConnectionError("closed")
        print(time.monotonic() - begin, flush=True)
        time.sleep(0.01)
elif role == "shout":  # address, port, count: datagrams, then, for some time, "end"
    to = (arguments[0], int(arguments[1]))
    out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for number in range(int(arguments[2])):
        out.sendto(b"word", to)
        if number % 20 == 0:
            time.sleep(0.002)
    for _ in range(100):
        out.sendto(b"end", to)
        time.sleep(0.002)
elif role == "hear":  # port: how many datagrams came before the end
    ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    ear.bind(("", int(arguments[0])))
    count = 0
    print("ready", flush=True)
    while ear.recv(64) == b"word":
        count += 1
    print(count, flush=True)
elif role == "busy":  # seconds: processor time over time
    begin, used = time.monotonic(), time.process_time()
    while time.monotonic() - begin < float(arguments[0]):
        pass
    print((time.process_time() - used) / (time.monotonic() - begin), flush=True)
"""


@pytest.fixture(scope="module")
def machine() -> None:
    """Skips the test where there can be no lab."""
    reason = lab.unavailable()
    if reason is not None:
        pytest.skip(reason)


class Peers:
    """Starts `peer.py` on hosts."""

    def __init__(self, folder: Path) -> None:
        self.script = folder / "peer.py"
        self.script.write_text(PEER)
        self.count = 0

    def __call__(
        self, host: lab.Host, *arguments: object, cpus: float | None = None
    ) -> lab.Process:
        self.count += 1
        argv = [sys.executable, "-I", "-S", str(self.script), *map(str, arguments)]
        return host.start(argv, log=self.script.parent / f"{self.count}.log", cpus=cpus)


@pytest.fixture
def peer(machine: None, tmp_path: Path) -> Iterator[Peers]:
    yield Peers(tmp_path)


def lines(process: lab.Process) -> list[str]:
    return process.log.read_text().splitlines()


def numbers(process: lab.Process) -> list[float]:
    return [float(line) for line in lines(process)]


def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def goes_on(process: lab.Process, seconds: float = 10.0) -> None:
    """Waits until the process writes again."""
    before = len(lines(process))
    until(lambda: len(lines(process)) > before, seconds)


def is_silent(process: lab.Process, seconds: float = 0.6) -> bool:
    time.sleep(0.2)  # what is on its way
    before = len(lines(process))
    time.sleep(seconds)
    return len(lines(process)) == before


def rates(peer: Peers, pairs: list[tuple[lab.Host, lab.Host]]) -> list[float]:
    """The bit/s of TCP from the first to the second of each pair, all at once."""
    sinks = [peer(to, "sink", PORT + at, 1.5) for at, (_, to) in enumerate(pairs)]
    for at, (source, to) in enumerate(pairs):
        peer(source, "source", to.address, PORT + at)
    for sink in sinks:
        sink.wait(20)
    return [numbers(sink)[0] for sink in sinks]


def pinging(peer: Peers, client: lab.Host, server: lab.Host, *, port: int = PORT) -> lab.Process:
    """A process that writes the time of each round trip over one connection."""
    peer(server, "echo", port)
    process = peer(client, "ping", server.address, port)
    goes_on(process)
    return process


def ended(pid: int) -> bool:
    return keeper.start_of(pid) is None


def left(name: str) -> list[str]:
    """What there is of a lab: namespaces, cgroups, and processes that bear its name or are in it."""
    listed = subprocess.run([commands.tool("ip"), "netns"], capture_output=True, text=True).stdout
    found = [line for line in listed.splitlines() if line.startswith(name)]
    found += [str(group) for group in keeper.quotas(name)]
    for pid in os.listdir("/proc"):
        if pid.isdigit():
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if name.encode() in command:
                found.append(f"{pid}: {command.decode()}")
    return found


def test_rate_in_one_direction_and_in_both(peer: Peers) -> None:
    with lab.Lab(hosts=2, rate=100e6) as cluster:
        first, second = cluster.hosts
        for pairs in ([(first, second)], [(first, second), (second, first)]):
            for rate in rates(peer, pairs):
                assert 85e6 <= rate <= 105e6
        second.set_rate(20e6)
        assert 17e6 <= rates(peer, [(first, second)])[0] <= 21e6
        second.set_rate(None)
        first.set_rate(None)
        assert rates(peer, [(first, second)])[0] > 200e6


def test_downloads_from_two_hosts_share_the_rate(peer: Peers) -> None:
    with lab.Lab(hosts=3, rate=50e6) as cluster:
        first, second, third = cluster.hosts
        together = sum(rates(peer, [(first, third), (second, third)]))
        assert 42e6 <= together <= 53e6


def test_delay_is_one_way_and_carries_a_fast_link(peer: Peers) -> None:
    delay = 0.01
    with lab.Lab(hosts=2, delay=delay) as cluster:
        first, second = cluster.hosts
        ping = pinging(peer, first, second)
        until(lambda: len(lines(ping)) >= 20)
        trips = sorted(numbers(ping))
        assert trips[0] >= 2 * delay
        assert trips[len(trips) // 2] < 2 * delay + 0.01
        ping.kill()
        assert rates(peer, [(first, second)])[0] > 200e6


def test_delay_with_rate(peer: Peers) -> None:
    with lab.Lab(hosts=2, rate=100e6, delay=0.01) as cluster:
        first, second = cluster.hosts
        for rate in rates(peer, [(first, second), (second, first)]):
            assert 80e6 <= rate <= 105e6


@pytest.mark.parametrize("delay", [0.0, 0.002])
def test_link_down_silences_and_up_resumes(peer: Peers, delay: float) -> None:
    with lab.Lab(hosts=2, delay=delay) as cluster:
        ping = pinging(peer, *cluster.hosts)
        cluster.hosts[1].link(False)
        assert is_silent(ping)
        cluster.hosts[1].link(True)
        goes_on(ping)
        assert ping.poll() is None


def test_partition_and_heal_keep_a_connection(peer: Peers) -> None:
    with lab.Lab(hosts=4) as cluster:
        hosts = cluster.hosts
        across = pinging(peer, hosts[0], hosts[2], port=PORT)
        back = pinging(peer, hosts[3], hosts[1], port=PORT + 1)
        within = pinging(peer, hosts[2], hosts[3], port=PORT + 2)
        cluster.partition([0, 1], [2, 3])
        assert is_silent(across) and is_silent(back)
        goes_on(within)
        assert across.poll() is None and back.poll() is None
        cluster.partition([0], [1])  # in place of the first
        goes_on(across)
        cluster.heal()
        goes_on(back)
        goes_on(across)


def test_partition_spares_hosts_in_no_group(peer: Peers) -> None:
    with lab.Lab(hosts=3) as cluster:
        hosts = cluster.hosts
        to_third = pinging(peer, hosts[0], hosts[2], port=PORT)
        across = pinging(peer, hosts[0], hosts[1], port=PORT + 1)
        cluster.partition([0], [1])
        assert is_silent(across)
        goes_on(to_third)


@pytest.mark.parametrize("receiver_loses", [True, False])
def test_loss(peer: Peers, receiver_loses: bool) -> None:
    with lab.Lab(hosts=2) as cluster:
        first, second = cluster.hosts
        loser = second if receiver_loses else first
        for port, fraction, least, most in ((PORT, 0.3, 0.65, 0.75), (PORT + 1, 0.0, 0.99, 1.0)):
            loser.loss(fraction)
            hear = peer(second, "hear", port)
            until(lambda: lines(hear))
            peer(first, "shout", second.address, port, 3000)
            hear.wait(20)
            assert least <= float(lines(hear)[1]) / 3000 <= most


def test_all_is_lost(peer: Peers) -> None:
    with lab.Lab(hosts=2) as cluster:
        ping = pinging(peer, *cluster.hosts)
        cluster.hosts[0].loss(1.0)
        assert is_silent(ping)
        cluster.hosts[0].loss(0.0)
        goes_on(ping)


def test_stop_cont_and_kill(peer: Peers) -> None:
    with lab.Lab(hosts=2) as cluster:
        ping = pinging(peer, *cluster.hosts)
        ping.stop()
        assert is_silent(ping) and ping.poll() is None
        with pytest.raises(TimeoutError, match=str(ping.pid)):
            ping.wait(0.05)
        ping.cont()
        goes_on(ping)
        ping.kill()
        assert ping.wait(5) == -signal.SIGKILL == ping.poll()
        ping.kill()  # nothing to do


@pytest.mark.parametrize("then", ["wait", "exit 3"])
def test_kill_reaches_the_group(machine: None, tmp_path: Path, then: str) -> None:
    with lab.Lab(hosts=1) as cluster:
        argv = ["sh", "-c", f"sleep 600 & echo $!; {then}"]
        process = cluster.hosts[0].start(argv, log=tmp_path / "log")
        until(lambda: lines(process))
        child = int(lines(process)[0])
        if then != "wait":
            assert process.wait(5) == 3
        assert not ended(child)
        process.kill()
        until(lambda: ended(child))


def test_processes_get_environment_directory_and_loopback(machine: None, tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "COLOUR": "green"}
    argv = ["sh", "-c", "echo $COLOUR; pwd; ls /sys/class/net; echo wrong >&2; exit 5"]
    with lab.Lab(hosts=1) as cluster:
        process = cluster.hosts[0].start(argv, env=environment, cwd=tmp_path, log=tmp_path / "log")
        assert process.wait(10) == 5
        assert lines(process) == ["green", str(tmp_path), "eth0", "lo", "wrong"]


def test_quota(peer: Peers) -> None:
    with lab.Lab(hosts=1) as cluster:
        try:
            process = peer(cluster.hosts[0], "busy", 2.0, cpus=0.3)
        except lab.LabUnavailable as error:
            pytest.skip(str(error))
        process.wait(20)
        assert 0.15 < numbers(process)[0] < 0.4
        name = cluster.name
    assert left(name) == []


def test_two_labs_at_once_do_not_meet(peer: Peers) -> None:
    with lab.Lab(hosts=2) as one, lab.Lab(hosts=2) as other:
        assert one.name != other.name
        pings = [pinging(peer, *each.hosts) for each in (one, other)]
        one.hosts[0].link(False)
        assert is_silent(pings[0])
        goes_on(pings[1])
    assert left(f"{keeper.PREFIX}-{os.getpid()}-") == []


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_nothing_is_left(machine: None, tmp_path: Path, error: type[BaseException] | None) -> None:
    links = [commands.tool("ip"), "-o", "link"]
    before = subprocess.run(links, capture_output=True).stdout
    name, escaped = "", 0

    def work() -> None:
        nonlocal name, escaped
        with lab.Lab(hosts=2, rate=100e6, delay=0.001) as cluster:
            name = cluster.name
            argv = ["sh", "-c", "setsid sleep 600 & echo $!; sleep 600"]
            process = cluster.hosts[0].start(argv, log=tmp_path / "log")
            until(lambda: lines(process))
            escaped = int(lines(process)[0])
            assert len(left(name)) >= 4  # namespaces and the keeper
            assert subprocess.run(links, capture_output=True).stdout == before
            if error is not None:
                raise error("on purpose")

    if error is None:
        work()
    else:
        with pytest.raises(error, match="on purpose"):
            work()
    assert left(name) == [] and ended(escaped)
    assert subprocess.run(links, capture_output=True).stdout == before


OWNER = """
import signal, sys, time
from oarlock.fleet_ext import lab

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
with lab.Lab(hosts=2, delay=0.001) as cluster:
    host = cluster.hosts[0]
    process = host.start(["sleep", "600"], log=sys.argv[1])
    try:
        host.start(["sleep", "600"], log=sys.argv[1], cpus=0.5)
    except lab.LabUnavailable:
        pass
    print(cluster.name, process.pid, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def owner(machine: None, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str, int]]:
    """Another process with a lab, the lab's name, and the pid of a process on a host of it."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    argv = [sys.executable, "-c", OWNER, str(tmp_path / "log")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            name, pid = process.stdout.readline().split()
            yield process, name, int(pid)
        finally:
            process.kill()
    until(lambda: left(name) == [])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_keeper_removes_the_lab_of_a_killed_owner(
    owner: tuple[subprocess.Popen[str], str, int], number: signal.Signals
) -> None:
    process, name, pid = owner
    assert left(name)
    process.send_signal(number)
    process.wait(20)
    until(lambda: left(name) == [])
    assert ended(pid)


def test_clean_removes_what_no_keeper_has(
    owner: tuple[subprocess.Popen[str], str, int],
) -> None:
    process, name, pid = owner
    keepers = [line for line in left(name) if "keeper.py" in line]
    assert len(keepers) == 1
    os.kill(int(keepers[0].partition(":")[0]), signal.SIGKILL)
    assert name not in lab.clean()
    assert left(name) and not ended(pid)
    process.kill()
    process.wait()
    assert left(name)
    assert name in lab.clean()
    assert left(name) == [] and ended(pid)


def test_what_begins_while_a_lab_ends_is_not_taken_for_a_part_of_it(
    machine: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel gives new namespaces the inodes of those that have ended."""
    run, new = subprocess.run, []

    def running(argv: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        done = run(argv, **options)
        if argv[1:3] == ["netns", "delete"] and argv[3].endswith("-switch"):  # the last of the lab
            for _ in range(20):
                time.sleep(0.05)
                name = f"{other.name}-{len(new)}"
                run([argv[0], "netns", "add", name], check=True)
                new.append(keeper.inode(keeper.NAMESPACES / name))
        return done

    with lab.Lab(hosts=1) as other:
        with lab.Lab(hosts=3) as one:
            ended = {keeper.inode(space) for space in keeper.namespaces(one.name)}
            monkeypatch.setattr(subprocess, "run", running)
        monkeypatch.undo()
    assert len(ended) == 4 and len(new) == 20 and ended.isdisjoint(new)


def test_a_forked_child_does_not_end_the_lab(peer: Peers) -> None:
    with lab.Lab(hosts=2) as cluster:
        ping = pinging(peer, *cluster.hosts)
        child = os.fork()
        if child == 0:
            cluster.__exit__(None, None, None)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        goes_on(ping)


def test_a_router_that_ends_is_told(machine: None) -> None:
    with pytest.raises(RuntimeError, match="router"):
        with lab.Lab(hosts=1, delay=0.001) as cluster:
            spaces = {keeper.inode(keeper.NAMESPACES / f"{cluster.name}-switch")}
            (router,) = keeper.processes_in(spaces)
            os.kill(router, signal.SIGKILL)
            until(lambda: ended(router))


def test_unavailable_tells_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "root" in str(lab.unavailable())
    with pytest.raises(lab.LabUnavailable, match="root"):
        lab.Lab().__enter__()


def test_a_refusing_machine_is_unavailable(machine: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster.Network, "shape", lambda *_: commands.run(["false"]))
    assert "exit status 1" in str(lab.unavailable())
    assert left(f"{keeper.PREFIX}-{os.getpid()}-") == []


@pytest.mark.parametrize("missing", ["ip", "tc"])
def test_a_missing_program_is_named(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    found = commands.shutil.which
    monkeypatch.setattr(
        commands.shutil, "which", lambda name, path=None: None if name == missing else found("sh")
    )
    assert f"program {missing} " in str(lab.unavailable())


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"hosts": 0}, "hosts"),
        ({"hosts": 251}, "hosts"),
        ({"hosts": 2.5}, "hosts"),
        ({"rate": 0.0}, "rate"),
        ({"rate": 100.0}, "rate"),
        ({"rate": float("nan")}, "rate"),
        ({"rate": float("inf")}, "rate"),
        ({"delay": -0.1}, "delay"),
        ({"delay": 20.0}, "delay"),
        ({"delay": float("nan")}, "delay"),
    ],
)
def test_bad_arguments_of_a_lab(arguments: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=f"^{named}="):
        lab.Lab(**arguments)  # type: ignore[arg-type]


def test_bad_arguments_on_a_lab(machine: None, tmp_path: Path) -> None:
    with lab.Lab(hosts=2) as cluster:
        host = cluster.hosts[0]
        log = tmp_path / "log"
        calls: list[tuple[str, Callable[[], object]]] = [
            ("rate=", lambda: host.set_rate(-1.0)),
            ("fraction=", lambda: host.loss(1.5)),
            ("fraction=", lambda: host.loss(float("nan"))),
            ("groups: 2", lambda: cluster.partition([0], [2])),
            ("groups: -1", lambda: cluster.partition([-1], [1])),
            ("groups: host 1", lambda: cluster.partition([0, 1], [1])),
            ("argv=", lambda: host.start("ls", log=log)),
            ("argv=", lambda: host.start([], log=log)),
            ("argv.0.=", lambda: host.start(["no-such-program"], log=log)),
            ("argv.0.=", lambda: host.start(["./no-such-program"], cwd=tmp_path, log=log)),
            ("cwd=", lambda: host.start(["ls"], cwd=tmp_path / "nowhere", log=log)),
            ("log=", lambda: host.start(["ls"], log=tmp_path / "nowhere" / "log")),
            ("cpus=", lambda: host.start(["ls"], cpus=0.0, log=log)),
            ("cpus=", lambda: host.start(["ls"], cpus=float("nan"), log=log)),
        ]
        for named, call in calls:
            with pytest.raises(ValueError, match=f"^{named}"):
                call()
        assert not log.exists()
        with pytest.raises(RuntimeError, match="begun"):
            cluster.__enter__()
        assert len(cluster.hosts) == 2


def test_a_host_that_crashes_takes_all_that_runs_on_it(peer: Peers, tmp_path: Path) -> None:
    script = (
        "import os, time; os.fork() or os.setsid(); print(os.getpid(), flush=True); time.sleep(60)"
    )
    with lab.Lab(hosts=2) as one:
        both = [
            host.start([sys.executable, "-c", script], log=tmp_path / f"{host.index}.log")
            for host in one.hosts
        ]
        until(lambda: all(len(lines(process)) == 2 for process in both))
        one.hosts[0].crash()
        assert both[0].wait(10.0) == -signal.SIGKILL
        until(lambda: not any(Path(f"/proc/{pid}/fd").exists() for pid in lines(both[0])))
        assert both[1].poll() is None


def test_a_disk_is_full_for_its_processes_only(peer: Peers, tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    script = "import sys, time; open(sys.argv[1] + '/first', 'w').write('x'); print('ready', flush=True); time.sleep(60)"
    disk = lab.Disk(folder, 1 << 20)
    with lab.Lab(hosts=1) as one:
        process = one.hosts[0].start(
            [sys.executable, "-c", script, str(folder)], log=tmp_path / "log", disk=disk
        )
        until(lambda: "ready" in lines(process))
        inside = disk.seen_from(process.pid)
        assert (inside / "first").read_text() == "x" and not list(folder.iterdir())
        disk.fill(process.pid)
        with pytest.raises(OSError, match="No space left"):
            (inside / "second").write_bytes(bytes(4096))
        disk.free(process.pid)
        (inside / "second").write_bytes(bytes(4096))
    assert not list(folder.iterdir())


def test_a_disk_wants_a_folder_and_room(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="folder="):
        lab.Disk(tmp_path / "none", 1 << 20)
    with pytest.raises(ValueError, match="size="):
        lab.Disk(tmp_path, 10)
