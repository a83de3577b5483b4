"""Ranks from the command line: a text, a server, and a server that loses a rank."""

import os
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest
from typer.testing import CliRunner

from oarlock.llm.cli.main import app

MAIN = "from oarlock.llm.cli.main import main; main()"


def call(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)], env={"OARLOCK_RANK_TOKEN": None})


def test_generate_over_two_ranks(shared_data):
    model = shared_data("weights/stories260K") / "stories260K.bin"
    options = ["--max-tokens", 12, "--temperature", 0, "--weights", "fp32", "--ranks", 2]
    result = call("generate", model, "Once upon a time", *options)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("Once upon a time, there was a little girl named Lily.")
    result = call("generate", model, "x", "--ranks", 4)
    assert result.exit_code == 2 and "ranks must be fewer than 4" in result.stderr


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["rank", "--join", "nowhere"], '"host:port"'),
        (["rank", "--join", "127.0.0.1:1"], "token must have 16 characters"),
        (["rank", "--join", "127.0.0.1:1", "--token-file", "/no/file"], "/no/file"),
        (["serve", "/", "--ranks", 0], "ranks must be an integer in 1..64"),
        (["serve", "/", "--ranks", 2, "--rank-listen", "x"], '"host:port"'),
        (["serve", "/", "--rank-token-file", "x"], "without --rank-listen"),
        (["serve", "/", "--rank-listen", "x"], "--ranks must be 2 or more with --rank-listen"),
    ],
)
def test_refusals(arguments, message):
    result = call(*arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr and "Traceback" not in result.output


def test_a_server_of_two_ranks_says_when_one_is_lost(shared_data, tmp_path):
    model = shared_data("weights/stories260K") / "stories260K.bin"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", MAIN, "serve", model, "--port", port, "--ranks", 2]
    command += ["--weights", "fp32", "--threads", 1, "--name", "stories"]
    log = tmp_path / "log"
    with log.open("w") as file:
        process = subprocess.Popen([*map(str, command)], stderr=file)
    body = {"model": "stories", "prompt": "Once upon a time", "max_tokens": 12, "temperature": 0}
    url, options = f"http://127.0.0.1:{port}", {"timeout": 30, "trust_env": False}
    try:
        for _ in range(900):
            try:
                if httpx.get(f"{url}/health", **options).status_code == 200:
                    break
            except httpx.TransportError:
                assert process.poll() is None, log.read_text()
                time.sleep(0.1)
        answer = httpx.post(f"{url}/v1/completions", json=body, **options).json()
        assert answer["choices"][0]["text"] == ", there was a little girl named Lily. She"
        assert "oarlock_engine_rank_exchanges" in httpx.get(f"{url}/metrics", **options).text
        with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
            (follower,) = map(int, file.read().split())
        os.kill(follower, signal.SIGKILL)
        for _ in range(2):  # the request that notices, and later ones
            answer = httpx.post(f"{url}/v1/completions", json=body, **options)
            assert answer.status_code == 503 and "rank 1" in answer.text
        assert "Traceback" not in log.read_text() and "request req-" not in log.read_text()
        embedding = {"model": "stories", "input": "a"}
        answer = httpx.post(f"{url}/v1/embeddings", json=embedding, **options)
        assert answer.status_code == 503 and "rank 1" in answer.text
        answer = httpx.get(f"{url}/health", **options)
        assert answer.status_code == 503 and answer.json() == {"status": "failed"}
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
