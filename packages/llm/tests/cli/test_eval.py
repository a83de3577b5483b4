"""`oarlock-llm eval` as it is typed."""

import pytest
from typer.testing import CliRunner

from oarlock.llm.cli.main import app


def typed(*arguments):
    return CliRunner().invoke(app, ["eval", *map(str, arguments)])


@pytest.mark.parametrize(
    ("last", "message"),
    [
        ("nowhere.gguf", "no file or folder nowhere.gguf is there, and nothing is downloaded"),
        (
            "gsm8k",
            "no file or folder gsm8k is there, but tasks are called so: give them as --tasks",
        ),
        ("http://127.0.0.1:9/v1", "a server must be given as URL#MODEL"),
    ],
)
def test_every_model_is_looked_for_before_the_first_is_scored(fixtures, tmp_path, last, message):
    model = f"{fixtures / 'gpt2'},bytes"
    result = typed("run", model, last, "--limit", 1, "--output", tmp_path / "results")
    assert result.exit_code == 2 and message in result.stderr
    assert not list(tmp_path.iterdir())


def test_tables_have_whole_names_in_a_pipe():
    name = "bbh_tracking_shuffled_objects_seven_objects"
    result = typed("list", "--tasks", name)
    assert name in result.stdout and "…" not in result.stdout
    assert len({len(line) for line in result.stdout.splitlines()[:-1]}) == 1
