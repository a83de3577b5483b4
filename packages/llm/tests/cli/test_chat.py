"""`chat`: through a pipe, and at a terminal."""

import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from oarlock.llm import models
from oarlock.llm.cli.main import app

GREEDY = ["--temperature", 0, "--threads", 1, "--generation-config", "off", "--weights", "fp32"]


@pytest.fixture(scope="module")
def model(fixtures, tmp_path_factory):
    """Random weights that hold 4096 tokens and have no end of their own, with Qwen2's template."""
    folder = tmp_path_factory.mktemp("model")
    config = models.llama.LlamaConfig(
        vocab_size=272, hidden_size=32, num_layers=2, num_heads=2, max_length=4096
    )
    models.save(models.create("llama", config, seed=0), folder)
    shutil.copy(fixtures / "qwen2" / "tokenizer.json", folder)
    shutil.copy(fixtures / "qwen2" / "chat_template.jinja", folder)
    return folder


def chat(model, text, *options):
    arguments = ["chat", model, *GREEDY, *options]
    return CliRunner().invoke(app, [*map(str, arguments)], input=text)


def test_lines_of_a_pipe_are_messages(model):
    """Only answers are written; the second depends on the first turn."""
    from oarlock.llm.engine import LLM, SamplingParams

    result = chat(model, "hello\nhow\\\nare you\n", "--max-tokens", 6)
    assert result.exit_code == 0, result.output
    llm, params = LLM(model), SamplingParams(max_tokens=6, temperature=0.0)
    messages = [{"role": "user", "content": "hello"}]
    first = llm.chat(messages, params).text
    messages += [
        {"role": "assistant", "content": first},
        {"role": "user", "content": "how\nare you"},
    ]
    assert result.stdout == f"{first}\n{llm.chat(messages, params).text}\n"
    assert result.stderr.count("[cut after 6 tokens]") == 2


def test_commands(model, tmp_path):
    script = (
        "/system Be brief.\nfirst\n/stats\n/set temperature 0.5\n/set seed 3\n/set top_k 0\n/retry\n/undo\nsecond\n"
        f"//slash\n/save {tmp_path / 'talk.json'}\n/help\n/exit\nnever\n"
    )
    result = chat(model, script, "--max-tokens", 4)
    assert result.exit_code == 0, result.output
    saved = json.loads((tmp_path / "talk.json").read_text())["messages"]
    assert [one["role"] for one in saved] == ["system", *["user", "assistant"] * 2]
    assert [one["content"] for one in saved if one["role"] == "user"] == ["second", "/slash"]
    assert "the last answer: 4 tokens" in result.stderr and "/retry" in result.stderr
    result = chat(model, f"/save {tmp_path / 'again.json'}\n", "--load", tmp_path / "talk.json")
    assert json.loads((tmp_path / "again.json").read_text())["messages"] == saved
    result = chat(model, f"a\n/reset\n/save {tmp_path / 'no.json'}\n", "--max-tokens", 1)
    assert json.loads((tmp_path / "no.json").read_text())["messages"] == []


def test_the_authors_defaults_and_what_is_typed(fixtures):
    from oarlock.llm.cli import engine
    from oarlock.llm.engine import LLM

    generation = LLM(fixtures / "qwen2").opened.generation
    params = engine.drawing(generation, top_p=0.5, seed=None)
    assert (params.temperature, params.top_k, params.top_p) == (0.7, 20, 0.5)
    assert (engine.drawing().temperature, engine.drawing().max_tokens) == (0.8, 256)


@pytest.mark.parametrize(
    "text, message",
    [
        ("/sistem x\n", "there is no /sistem: did you mean /system?"),
        ("/save\n", "/save needs a file"),
        ("/load /no/file\n", "/no/file"),
        ("/undo\n", "there is no message to take back"),
        ("/set heat 1\n", "/set changes one of"),
        ("/set temperature hot\n", "temperature must be a number or none, got 'hot'"),
        ("/set top_p 2\n", "top_p must be"),
        ("word " * 5000 + "\n", "tokens, and the model holds 4096"),
    ],
)
def test_refusals_end_a_pipe(model, text, message):
    result = chat(model, text)
    assert result.exit_code == 2 and message in result.stderr and "Traceback" not in result.output


def test_refusals_before_anything_is_read(model, fixtures, tmp_path):
    result = chat(model, "", "--top-p", 7)
    assert result.exit_code == 2 and "--top-p must be" in result.stderr
    result = chat(fixtures / "llama", "hi\n")
    assert result.exit_code == 2 and "chat needs a chat template" in result.stderr
    template = tmp_path / "t.jinja"
    template.write_text("{{ messages[-1].content }}")
    result = chat(fixtures / "llama", "hi\n", "--chat-template", template, "--max-tokens", 2)
    assert result.exit_code == 0 and len(result.stdout) > 1
    (tmp_path / "bad.json").write_text('{"messages": [{"role": "tool", "content": "x"}]}')
    result = chat(model, "", "--load", tmp_path / "bad.json")
    assert result.exit_code == 2 and "must be a text of system, user or assistant" in result.stderr


def test_an_adapter_answers(fixtures, tmp_path):
    template = tmp_path / "t.jinja"
    template.write_text("{{ messages[-1].content }}")
    options = ["--chat-template", template, "--max-tokens", 12]
    plain = chat(fixtures / "llama", "hi\n", *options)
    tuned = chat(fixtures / "llama", "hi\n", *options, "--adapter", fixtures / "llama-lora")
    assert plain.exit_code == tuned.exit_code == 0, tuned.output
    assert plain.stdout != tuned.stdout
    drafted = chat(
        fixtures / "llama", "hi\n", *options, "--draft", fixtures / "llama", "--guesses", 2
    )
    assert drafted.stdout == plain.stdout


class Terminal:
    """The program at a terminal of its own."""

    def __init__(self, arguments):
        code = (
            "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            "from oarlock.llm.cli.main import main; main()"
        )
        self.ours, theirs = pty.openpty()
        command = [sys.executable, "-c", code, *map(str, arguments)]
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
        os.close(theirs)
        self.seen = ""

    def until(self, condition, seconds=60.0):
        """Read until what was written since fits; gives and forgets it."""
        end = time.monotonic() + seconds
        while not condition(self.seen):
            assert time.monotonic() < end, self.seen[-500:]
            if select.select([self.ours], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self.ours, 4096).decode(errors="replace")
                except OSError:  # the other end is closed
                    assert condition(self.seen), self.seen[-500:]
        found, self.seen = self.seen, ""
        return found

    def interrupt(self, condition):
        """Ctrl-C, again if need be: Python does not notice one that comes just before it waits for a line."""
        for patience in (3.0, 3.0, 6.0, 60.0):
            self.process.send_signal(signal.SIGINT)
            try:
                return self.until(condition, patience)
            except AssertionError:
                if patience == 60.0:
                    raise

    def type(self, text):
        os.write(self.ours, text.encode())

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.ours)


def at_prompt(seen):
    """Whether a line is awaited: keys before that may be lost."""
    return seen.rstrip(" ").endswith(">")


def test_ctrl_c_stops_the_answer_and_not_the_program(model):
    terminal = Terminal(["chat", model, *GREEDY, "--max-tokens", 4000])
    try:
        terminal.until(lambda seen: "> " in seen)
        for _ in range(5):  # on a busy machine an answer may have ended before the signal
            terminal.type("hello\n")
            terminal.until(lambda seen: len(seen) > 60)  # the answer grows
            terminal.process.send_signal(signal.SIGINT)
            ends = ("[stopped]", "[cut after 4000 tokens]")
            seen = terminal.until(lambda seen: any(end in seen for end in ends) and at_prompt(seen))
            if ends[0] in seen:
                break
        terminal.type("/stats\n")
        stats = terminal.until(lambda seen: "ended by" in seen and at_prompt(seen))
        assert "ended by stopped" in stats
        terminal.interrupt(lambda seen: "Ctrl-D ends." in seen and at_prompt(seen))
        terminal.type("/set max_tokens 3\nmore\n")
        terminal.until(lambda seen: "[cut after 3 tokens]" in seen and at_prompt(seen))
        terminal.type("/nothing\n")
        terminal.until(lambda seen: "there is no /nothing" in seen and at_prompt(seen))
        terminal.type("\x04")
        assert terminal.process.wait(30) == 0
    finally:
        terminal.close()


def test_a_terminal_does_not_obey_the_model(model, monkeypatch):
    from oarlock.llm.cli import terminal

    assert terminal._CONTROL.sub("?", "a\x1b[2Jb\tc\nd\x9b0m") == "a?[2Jb\tc\nd?0m"
