"""Ranks that join over TCP, who is let in, what peers may say, and what happens when one is killed."""

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies
from oarlock.native import quant
from oarlock.native.decoder import Model

from oarlock.llm import loading
from oarlock.llm.engine import LLM, EngineConfig, SamplingParams, packing
from oarlock.llm.ranks import RanksConfig, follower, frames, joining, models
from oarlock.llm.ranks.leader import Team

GREEDY = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)
ONE = EngineConfig(threads=1)
TOKEN = "0123456789abcdef"
MAIN = "from oarlock.llm.cli.main import main; main()"


@pytest.fixture
def place():
    """An address that is free."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture
def followers(place):
    """Starts the command `oarlock-llm rank` so many times."""
    started = []

    def start(count, token=TOKEN):
        command = [sys.executable, "-c", MAIN, "rank", "--join", place, "--threads", "1"]
        environment = os.environ | {"OARLOCK_RANK_TOKEN": token}
        for _ in range(count):
            process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, text=True)
            started.append(process)
        return started[-count:]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def config(place, count):
    return RanksConfig(count=count, listen=place, token=TOKEN, timeout_s=20, join_s=90)


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_that_join_tell_the_same_story(fixtures, place, followers, ranks):
    processes = followers(ranks - 1)
    wanted = LLM(fixtures / "qwen2", config=ONE).generate([[1, 2, 3]], GREEDY)
    llm = LLM(fixtures / "qwen2", config=ONE, ranks=config(place, ranks))
    try:
        found = llm.generate([[1, 2, 3]], GREEDY)
        assert found[0].completions[0].tokens == wanted[0].completions[0].tokens
    finally:
        llm.close()
    for process in processes:
        assert process.wait(10) == 0


def test_a_killed_rank_is_an_error_at_all_others(fixtures, place, followers):
    processes = followers(2)
    llm = LLM(fixtures / "gpt2", config=ONE, ranks=config(place, 3))
    stream = llm.stream([1, 2, 3], SamplingParams(max_tokens=20, ignore_eos=True))
    next(stream)
    processes[0].kill()
    start = time.monotonic()
    with pytest.raises(ConnectionError, match="rank [12]"):
        list(stream)
    said = processes[1].communicate(timeout=10)[1]
    assert time.monotonic() - start < 8
    # The other saw the loss itself, or that the leader has ended.
    assert "rank" in said or "the leader has ended" in said


LEADER = """
import sys, time
from oarlock.llm.engine import LLM, EngineConfig, SamplingParams
from oarlock.llm.ranks import RanksConfig
place, token = sys.argv[2:4]
several = RanksConfig(count=2, listen=place, token=token) if place else 3
llm = LLM(sys.argv[1], config=EngineConfig(threads=1), ranks=several)
print([one.pid for one in llm.engine._team.processes.values()], flush=True)
if sys.argv[4] == "busy":
    while True:
        llm.generate([[1, 2, 3]], SamplingParams(max_tokens=20, ignore_eos=True))
time.sleep(60)
"""


@pytest.mark.parametrize("kind,state", [("shared", "busy"), ("tcp", "idle")])
def test_followers_end_when_the_leader_is_killed(fixtures, place, followers, kind, state):
    joined = followers(1) if kind == "tcp" else []
    given = [str(fixtures / "gpt2"), place if kind == "tcp" else "", TOKEN, state]
    process = subprocess.Popen(
        [sys.executable, "-c", LEADER, *given], stdout=subprocess.PIPE, text=True
    )
    try:
        pids = eval(process.stdout.readline())
        assert len(pids) == (0 if kind == "tcp" else 2)
        time.sleep(0.2)
    finally:
        process.kill()
        process.communicate()
    end = time.monotonic() + 5
    while any(map(_runs, pids)) or any(one.poll() is None for one in joined):
        assert time.monotonic() < end
        time.sleep(0.02)


def _runs(pid):
    """Not ended, nor waiting for somebody to ask how."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_only_who_knows_the_token_is_let_in(fixtures, place, followers):
    """Strangers are sent away, and the leader goes on waiting."""
    (stranger,) = followers(1, token="another token, long enough")
    made = []

    def lead():
        made.append(LLM(fixtures / "gpt2", config=ONE, ranks=config(place, 2)))

    thread = threading.Thread(target=lead)
    thread.start()
    host, port = place.split(":")
    said = stranger.communicate(timeout=60)[1]
    assert stranger.returncode == 2 and "the token is another one" in said
    for rubbish in (b"GET / HTTP/1.1\r\n\r\n" * 4, struct.pack("<4sIQ", b"OLR1", 1 << 20, 0), b""):
        with socket.create_connection((host, int(port))) as link, contextlib.suppress(OSError):
            link.sendall(rubbish)
            link.shutdown(socket.SHUT_WR)
            while link.recv(4096):
                pass
    followers(1)
    thread.join(90)
    try:
        assert len(made[0].generate([[1, 2]], GREEDY)[0].completions[0].tokens) == 12
    finally:
        made[0].close()


def test_who_listens_must_know_the_token_too(place):
    host, port = place.split(":")
    with joining.listen(host, int(port)) as server:

        def pretend():
            link = server.accept()[0]
            with link:
                frames.send(link, {"version": joining.VERSION, "number": "1"})
                frames.receive(link)
                frames.send(link, {"code": "0" * 64})

        thread = threading.Thread(target=pretend)
        thread.start()
        with pytest.raises(ValueError, match="does not know the token"):
            follower.join(place, TOKEN)
        thread.join()

        def older():
            link = server.accept()[0]
            with link:
                frames.send(link, {"version": 0, "number": "1"})

        thread = threading.Thread(target=older)
        thread.start()
        with pytest.raises(ValueError, match="version 0, this rank 1: install the same"):
            follower.join(place, TOKEN)
        thread.join()


def test_nobody_there_is_said(place):
    with pytest.raises(ConnectionError, match=f"nobody listens at {place} .*start the leader"):
        follower.join(place, TOKEN, wait_s=0.1)
    with pytest.raises(TimeoutError, match="no rank has joined in time"):
        Team(RanksConfig(count=2, listen=place, token=TOKEN, join_s=0.2))

    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ValueError, match="listen must be a free address of this machine"):
            Team(RanksConfig(count=2, listen=address, token=TOKEN))


def test_a_local_rank_ends_quietly_with_its_leader(monkeypatch):
    def lost(*_, **__):
        raise ConnectionResetError("Connection reset by peer")

    monkeypatch.setattr(follower, "follow", lost)
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # this process keeps its own
    left, right = socket.socketpair()
    with left, pytest.raises(SystemExit) as leaving:
        follower.run_local(right.detach(), 0)
    assert leaving.value.code == 1


def test_frames_carry_arrays_and_nothing_else():
    left, right = socket.socketpair()
    with left, right:
        big = np.arange(3 << 20, dtype=np.float32).reshape(3, -1)
        arrays = [np.array([[1, 2], [3, 4]], np.int32), np.zeros(0, np.uint8), big]
        thread = threading.Thread(target=lambda: frames.send(left, {"kind": "x", "n": 1}, arrays))
        thread.start()
        fields, found = frames.receive(right, room=quant.memory)
        thread.join()
        assert fields == {"kind": "x", "n": 1}
        for one, other in zip(arrays, found):
            assert one.dtype == other.dtype and one.tobytes() == other.tobytes()
            assert one.shape == other.shape and (not one.size or other.ctypes.data % 64 == 0)

    def sent(head, text, rest=b""):
        left, right = socket.socketpair()
        with left, right:
            left.sendall(head + text + rest)
            left.shutdown(socket.SHUT_WR)
            return frames.receive(right, most=frames.SMALL)

    def head(text, total=0, mark=b"OLR1"):
        return struct.pack("<4sIQ", mark, len(text), total)

    for text, total, error, message in (
        (b"{}", 0, ValueError, "cannot be read"),
        (b"[]", 0, ValueError, "cannot be read"),
        (b"\xff", 0, ValueError, "cannot be read"),
        (b'{"arrays":[["object",[1]]]}', 8, ValueError, "cannot be read|do not fit"),
        (b'{"arrays":[["float64",[1]]]}', 8, ValueError, "do not fit"),
        (b'{"arrays":[["float32",[-1]]]}', 0, ValueError, "do not fit"),
        (b'{"arrays":[["float32",[2]]]}', 4, ValueError, "do not fit"),
        (b'{"arrays":[["float32",[1]]]}', 4, EOFError, "closed"),
        (b'{"arrays":[]}', 5000, ValueError, "more than it may"),
    ):
        with pytest.raises(error, match=message):
            sent(head(text, total), text)
    with pytest.raises(ValueError, match="does not speak as a rank"):
        sent(head(b"{}", mark=b"HTTP"), b"{}")
    with pytest.raises(EOFError):
        sent(b"OLR", b"")


@hypothesis.settings(max_examples=200, deadline=None)
@hypothesis.given(
    strategies.binary(max_size=60)
    | strategies.recursive(
        strategies.none()
        | strategies.integers()
        | strategies.floats()
        | strategies.sampled_from(["float32", "uint8", "arrays"])
        | strategies.text(max_size=5),
        lambda one: strategies.lists(one, max_size=4)
        | strategies.dictionaries(strategies.sampled_from(["arrays", "kind"]), one),
        max_leaves=12,
    ).map(lambda found: json.dumps(found).encode()),
    strategies.integers(0, 40),
)
@hypothesis.example(b"[" * 3000, 0)
@hypothesis.example(b'{"arrays":[["float32",[1e99]]]}', 4)
def test_nonsense_in_a_frame_is_an_error_and_nothing_worse(text, total):
    left, right = socket.socketpair()
    with left, right:
        left.sendall(struct.pack("<4sIQ", b"OLR1", len(text), total) + text + bytes(total))
        left.shutdown(socket.SHUT_WR)
        try:
            fields, arrays = frames.receive(right, most=frames.SMALL)
        except (ValueError, EOFError):
            return
    assert isinstance(fields, dict) and sum(one.nbytes for one in arrays) == total


def test_who_dawdles_is_sent_away(place, monkeypatch):
    """A byte now and then does not keep others waiting."""
    monkeypatch.setattr(joining, "HELLO_S", 0.4)

    def dawdle(link):
        with contextlib.suppress(OSError):
            for _ in range(9):
                link.sendall(b"O")
                time.sleep(0.1)

    host, port = place.split(":")
    with joining.listen(host, int(port)) as server:
        with socket.create_connection((host, int(port))) as slow:
            thread = threading.Thread(target=dawdle, args=[slow])
            thread.start()
            start = time.monotonic()
            with pytest.raises(TimeoutError, match="no rank has joined in time"):
                joining.accept(server, b"x" * 16, session="", until=start + 0.6)
            assert time.monotonic() - start < 2
            thread.join()


@pytest.mark.parametrize("name", ["gpt2", "bloom", "mixtral", "chatglm"])
def test_models_arrive_as_they_were(fixtures, name):
    """Also where the head is a part of the embedding: once in memory."""
    found = loading.load(fixtures / name)
    given = found.family, found.config, found.parameters
    for _, model in packing.parts(*given, ranks=2, weights="bf16"):
        fields, arrays = models.pack(model)
        back = models.unpack(json.loads(json.dumps(fields)), arrays, Model)
        again, copies = models.pack(back)
        assert again == fields
        assert all(one.tobytes() == other.tobytes() for one, other in zip(arrays, copies))
        tied = name in ("gpt2", "bloom")
        assert np.shares_memory(back.head.packed, back.embedding.packed) == tied
    for nonsense in (None, {}, {"is": "Popen"}, {"is": "Norm", "weight": 1}, {"floats": 99}):
        with pytest.raises(ValueError, match="Model"):
            models.unpack(nonsense, [], Model)


def test_followers_need_no_paddle():
    code = (
        "import sys; import oarlock.llm.ranks.follower\n"
        "assert not {'paddle', 'fastapi', 'jinja2'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_signals_are_for_whom_they_are_sent_to(fixtures, place, followers):
    """A rank that was started by hand ends when it is told to."""
    (process,) = followers(1)
    llm = LLM(fixtures / "gpt2", config=ONE, ranks=config(place, 2))
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) != 0
    with pytest.raises(ConnectionError, match="rank 1"):
        llm.generate([[1, 2]], GREEDY)
