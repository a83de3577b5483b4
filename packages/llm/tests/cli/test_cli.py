"""The command line: fast help, plain refusals, and a served model."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from oarlock.llm.cli.main import app

FAKE = Path(__file__).parents[1] / "server" / "fake_service.py"
ENVIRONMENT = {"OARLOCK_API_KEYS": None}


def call(*arguments, **environment):
    return CliRunner().invoke(app, [*map(str, arguments)], env=ENVIRONMENT | environment)


def test_help_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['oarlock-llm', 'serve', '--help']\n"
        "from oarlock.llm.cli.main import main\n"
        "try:\n    main()\n"
        "finally:\n"
        "    heavy = {'paddle', 'numpy', 'fastapi', 'uvicorn', 'jinja2', 'matplotlib'}\n"
        "    assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ".gguf" in done.stdout and "OARLOCK_API_KEYS" in done.stdout


def test_every_command_is_listed_and_has_help():
    listed = call("--help").output
    for command in ("serve", "chat", "generate", "bench", "convert", "quantize", "info", "load"):
        assert command in listed
        assert call(command, "--help").exit_code == 0
    assert call("--version").output.startswith("oarlock-llm ")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["serve", "/no/such/model"], "/no/such/model is not there, and nothing is downloaded"),
        (["info", "some/model"], "oarlock-llm: some/model is not there: a model must be a folder"),
        (
            ["generate", "/", "x", "--adapter", "/no/x"],
            "--adapter must be a folder of PEFT, but /no/x",
        ),
        (["serve", "/", "--port", 99999], "65535"),
        (["serve", "/", "--concurrency", 0], "oarlock-llm: --concurrency must be"),
        (["serve", "/", "--tool-style", "x"], "oarlock-llm: --tool-style must be one of"),
        (["generate", "/", "x", "--cache-format", "fp16"], "oarlock-llm: --cache-format must be"),
        (
            ["serve", "/", "--api-key-file", "/no/keys"],
            "oarlock-llm: /no/keys: no such file or dir",
        ),
        (["serve", "/", "--adapter", "x"], "--adapter must be NAME=FOLDER, got 'x'"),
        (["serve", "/", "--adapter", "x=/no/folder"], "/no/folder is no folder"),
        (["serve", "/", "--adapter", "x=/", "--adapter", "x=/"], "got 'x' twice"),
        (["serve", "/", "--chat-template", "/no/file"], "oarlock-llm: /no/file: no such file"),
        (["load", "ftp://x", "--model", "m"], "url must be"),
        (["load", "http://127.0.0.1:1", "--model", "m"], "server which answers"),
        (["load", "http://x", "--model", "m", "--api-key-env", "NO_SUCH"], "NO_SUCH"),
    ],
)
def test_refusals(arguments, message):
    result = call(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr and "Traceback" not in result.output


def test_ctrl_c_while_libraries_are_imported_is_no_error(monkeypatch):
    from oarlock.llm.cli import main

    def importing(cause):
        raise ImportError("initialization failed") from cause

    monkeypatch.setattr(main, "app", lambda: importing(KeyboardInterrupt()))
    with pytest.raises(SystemExit) as leaving:
        main.main()
    assert leaving.value.code == 130
    monkeypatch.setattr(main, "app", lambda: importing(OSError()))
    with pytest.raises(ImportError):
        main.main()


def test_serve_takes_a_tokenizer_and_a_template(fixtures, tmp_path, monkeypatch):
    from oarlock.llm import engine, server

    made, opening = [], engine.open_service
    monkeypatch.setattr(engine, "open_service", lambda *a, **b: made.append(opening(*a, **b)) or made[-1])  # fmt: skip
    monkeypatch.setattr(server.Server, "run", lambda self, sockets: None)
    monkeypatch.setattr("logging.basicConfig", lambda **_: None)
    template = tmp_path / "t.jinja"
    template.write_text("{{ messages[-1].content }}")
    options = ["--tokenizer", "bytes", "--chat-template", template, "--port", 0, "--threads", 1]
    result = call("serve", fixtures / "glm", *options)
    assert result.exit_code == 0, result.output
    assert type(made[0].tokenizer).__name__ == "ByteTokenizer"
    assert made[0].chat_template == "{{ messages[-1].content }}"


def test_top_k_0_is_all_tokens_whatever_the_author_says():
    from oarlock.llm.cli.engine import drawing

    assert drawing({"top_k": 20}, top_k=None).top_k == 20
    assert drawing({"top_k": 20}, top_k=0).top_k is drawing({"top_k": 20}, top_k=-1).top_k is None
    with pytest.raises(ValueError, match="top_k must be an integer, 1 or more, got -2"):
        drawing(top_k=-2)


@pytest.mark.parametrize(
    "text, told",
    [
        ("max_length must be in 1..9.", "--max-length must be in 1..9."),
        ("prompt and max_tokens must be", "prompt and --max-tokens must be"),
        ("format must be one of", "--format must be one of"),
        (
            "choose another, or replace it with force=True.",
            "choose another, or replace it with --force.",
        ),
        ("say generation_config='off'.", "say --generation-config off."),
        ("the format of force, got 'max_length'.", "the format of force, got 'max_length'."),
        ("/max_length/x: max_lengths", "/max_length/x: max_lengths"),
    ],
)
def test_refusals_name_options(text, told):
    from oarlock.llm.cli.problems import with_options

    names = ("max_length", "max_tokens", "format", "force", "generation_config")
    assert with_options(text, {one: f"--{one.replace('_', '-')}" for one in names}) == told


def test_a_port_in_use_is_said_before_the_model_is_read(fixtures):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = call("serve", fixtures / "glm", "--port", port)  # which could not be served
    assert result.exit_code == 2, result.output
    assert f"port must be free, but {port} is in use" in result.stderr
    result = call("serve", fixtures / "glm", "--host", "203.0.113.7")
    assert result.exit_code == 2 and "must be this machine's" in result.stderr


def test_keys_of_the_environment(tmp_path, monkeypatch):
    from oarlock.llm.cli.serve import KEYS, read_keys

    monkeypatch.setenv(KEYS, "a, b")
    keys = read_keys(None)
    assert len(keys) == 2 and keys.admit(b"Bearer b") and KEYS not in os.environ
    assert len(read_keys(None)) == 0
    monkeypatch.setenv(KEYS, "a b")
    with pytest.raises(ValueError, match=KEYS):
        read_keys(None)
    path = tmp_path / "keys"
    path.write_text("one\n")
    assert len(read_keys(path)) == 1
    monkeypatch.setenv(KEYS, "a")
    with pytest.raises(ValueError, match="both"):
        read_keys(path)


SERVE = """
import importlib.util, sys, types
spec = importlib.util.spec_from_file_location("fake", {fake!r})
fake = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fake)
import oarlock.llm.engine as engine
engine.open_service = lambda path, **_: fake.FakeService(step_s=0.005)
from oarlock.llm.cli.main import main
sys.argv = ["oarlock-llm", "serve", {folder!r}, "--port", {port!r}, "--drain-s", "5"]
main()
"""


def test_serve_and_load(tmp_path):
    """The command around the fake: only the engine is replaced."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    url = f"http://127.0.0.1:{port}"
    code = SERVE.format(fake=str(FAKE), folder=str(tmp_path), port=port)
    environment = os.environ | {"OARLOCK_API_KEYS": "the-key"}
    errors = tmp_path / "errors"
    with errors.open("w") as file:
        child = subprocess.Popen([sys.executable, "-c", code], stderr=file, env=environment)
    try:
        for _ in range(200):
            try:
                if httpx.get(url + "/health", trust_env=False).status_code == 200:
                    break
            except httpx.ConnectError:
                assert child.poll() is None, errors.read_text()
                time.sleep(0.05)
        assert httpx.get(url + "/v1/models", trust_env=False).status_code == 401
        result = call(
            *["load", url, "--model", "fake/model", "--seconds", 0.5, "--streams", 4],
            *["--pid", child.pid, "--api-key-env", "THE_KEY", "--output", tmp_path / "out"],
            THE_KEY="the-key",
        )
        assert result.exit_code == 0, result.output
        assert "whole:" in result.stdout and "memory of the server" in result.stdout
        assert {p.name for p in (tmp_path / "out").iterdir()} == {"load.json", "load.png"}
        assert "the-key" not in (tmp_path / "out" / "load.json").read_text()
    finally:
        child.terminate()
        assert child.wait(20) == 0
    log = errors.read_text()
    assert '"route": "/v1/completions"' in log and "the-key" not in log and "cat sat" not in log


def test_generate_continues_and_info_describes(shared_data):
    model = shared_data("weights/stories260K") / "stories260K.bin"
    options = ["--max-tokens", 12, "--temperature", 0, "--weights", "fp32", "--threads", 1]
    result = call("generate", model, "Once upon a time", *options)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("Once upon a time, there was a little girl named Lily.")
    with_draft = [*options, "--draft", model, "--draft-weights", "int4", "--guesses", 3]
    assert call("generate", model, "Once upon a time", *with_draft).stdout == result.stdout
    by_default = call("generate", model, "Once upon a time", *options, "--draft", model)
    assert by_default.stdout == result.stdout
    result = call("generate", model, "x", "--draft", model, "--guesses", 0)
    assert result.exit_code == 2 and "--guesses must be 1 or more with a draft" in result.stderr
    result = call("info", model)
    assert result.exit_code == 0, result.output
    assert "llama2.c" in result.stdout and "1.0 MB float32" in result.stdout
    result = call("generate", model, "x", "--weights", "int3")
    assert result.exit_code == 2 and "weights must be one of" in result.stderr


def test_generate_keeps_to_the_room_and_checks_before_it_writes(fixtures):
    options = ["--temperature", 0, "--weights", "fp32", "--threads", 1]  # 32 positions
    result = call("generate", fixtures / "llama", "cat", *options)
    assert result.exit_code == 0 and result.stdout.startswith("cat"), result.output
    for prompt, more, message in (
        ("cat " * 99, [], "the prompt has "),
        ("cat", ["--max-tokens", 99], "must be at most 32 tokens together"),
    ):
        result = call("generate", fixtures / "llama", prompt, *options, *more)
        assert result.exit_code == 2 and message in result.stderr, result.output
        assert result.stdout == ""
    tokenizer = ["--tokenizer", "bytes"]
    result = call("generate", fixtures / "glm", "\1\2", *options, *tokenizer, "--max-tokens", 4)
    assert result.exit_code == 0 and result.stdout.startswith("\1\2"), result.output
    result = call("generate", fixtures / "glm", "cat", *options, "--tokenizer", "x.xml")
    assert result.exit_code == 2 and "--tokenizer must be bytes or end" in result.stderr
    result = call("generate", fixtures / "glm", "cat", *options)
    assert result.exit_code == 2 and "tokenizer is absent" in result.stderr
    assert result.stdout == ""


def test_generate_with_an_adapter(fixtures):
    from oarlock.llm.engine import LLM, SamplingParams

    options = ["--max-tokens", 8, "--temperature", 0, "--weights", "fp32", "--threads", 1]
    result = call("generate", fixtures / "llama", "cat", *options, "--adapter", fixtures / "llama-lora")  # fmt: skip
    assert result.exit_code == 0, result.output
    llm = LLM(fixtures / "llama", adapters={"a": fixtures / "llama-lora"})
    params = SamplingParams(temperature=0.0, max_tokens=8)
    assert result.stdout == f"cat{llm.generate('cat', params, adapter='a')[0].text}\n"
    assert result.stdout != f"cat{llm.generate('cat', params)[0].text}\n"


def test_a_real_model_is_served(shared_data, tmp_path):
    """The whole: files, engine, HTTP, and the end after SIGTERM."""
    model = shared_data("weights/stories260K") / "stories260K.bin"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    main = "from oarlock.llm.cli.main import main; main()"
    command = [sys.executable, "-c", main, "serve", model, "--port", port]
    command += ["--weights", "fp32", "--threads", 1, "--name", "stories"]
    process = subprocess.Popen([*map(str, command)], stderr=(tmp_path / "log").open("w"))
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                if httpx.get(f"{url}/health").status_code == 200:
                    break
            except httpx.TransportError:
                assert process.poll() is None, (tmp_path / "log").read_text()
                time.sleep(0.1)
        body = {
            "model": "stories",
            "prompt": "Once upon a time",
            "max_tokens": 12,
            "temperature": 0,
        }
        answer = httpx.post(f"{url}/v1/completions", json=body, timeout=30).json()
        assert answer["choices"][0]["text"] == ", there was a little girl named Lily. She"
        assert answer["usage"]["prompt_tokens"] == 5
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
