"""The example scripts: what is wrong is told in one line, with exit status 2."""

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def run(monkeypatch, capsys):
    """Run an example; returns what it wrote to stdout, or its one line on stderr if refused."""

    def call(script, *arguments):
        monkeypatch.setattr("sys.argv", [script, *map(str, arguments)])
        try:
            runpy.run_path(str(EXAMPLES / script), run_name="__main__")
        except SystemExit as end:
            assert end.code == 2
            (line,) = capsys.readouterr().err.splitlines()
            return line
        return capsys.readouterr().out

    monkeypatch.setattr("oarlock.native.paddle.accelerate", lambda: None)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    return call


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text"
    path.write_text("".join(f"{n} and {n * n} make {n + n * n}.\n" for n in range(200)))
    return path


def test_a_folder_belongs_to_its_text_and_settings(run, text, tmp_path):
    folder = tmp_path / "run"
    options = {"--steps": 2, "--width": 32, "--layers": 1, "--vocab-size": 260}

    def train(text, **changes):
        given = options | {f"--{key.replace('_', '-')}": value for key, value in changes.items()}
        return run("train_llama.py", text, folder, *(x for pair in given.items() for x in pair))

    assert train(text, vocab_size=4096).startswith("train_llama.py: vocab_size must be at most")
    assert not folder.exists()
    assert "step 2/2" in train(text)
    assert "continuing after step 2" in train(text)
    other = tmp_path / "other"
    other.write_text("another text")
    for line, differences in [
        (train(other), ["another TEXT"]),
        (
            train(text, width=64, vocab_size=300),
            ["--width 32, not 64", "--vocab-size 260, not 300"],
        ),
    ]:
        assert line.startswith(f"train_llama.py: {folder} was made with ")
        assert all(difference in line for difference in differences)
        assert line.endswith("Use another FOLDER.")
    (folder / "run.json").unlink()
    assert "has a tokenizer.json but no run.json" in train(text)


def test_wrong_arguments_of_training_take_a_line(run, text, tmp_path):
    folder = tmp_path / "run"
    assert "nowhere" in run("train_llama.py", tmp_path / "nowhere", folder)
    assert "Is a directory" in run("train_llama.py", tmp_path, folder)
    assert "--width must be a multiple of 32" in run("train_llama.py", text, folder, "--width", 16)
    assert "--steps must be 1 or more" in run("train_llama.py", text, folder, "--steps", 0)
    assert "num_layers must be a pos" in run("train_llama.py", text, folder, "--layers", 0)
    assert not folder.exists()


def test_a_missing_model_takes_a_line(run, tmp_path):
    line = run("write_story.py", tmp_path)
    assert line.startswith("write_story.py: ") and "stories260K.bin" in line
