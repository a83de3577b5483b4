"""`bench` at the command line."""

import json

import pytest
from typer.testing import CliRunner

from oarlock.llm.cli.main import app


def call(*arguments):
    return CliRunner().invoke(app, ["bench", *map(str, arguments), "--threads", "1"])


def test_tables_and_json(fixtures, tmp_path):
    sizes = ["--batch", "1,2", "--prompt", "5,9", "--new", 3, "--repeat", 2, "--warm-up", 0]
    file = tmp_path / "speed.json"
    result = call(fixtures / "qwen2", "--weights", "fp32,int4", *sizes, "--json", file)
    assert result.exit_code == 0, result.output
    assert "prefill" in result.stdout and "int4" in result.stdout
    found = json.loads(file.read_text())
    cases = [(one["weights"], *one["case"].values()) for one in found["results"]]
    assert cases == [
        (weights, batch, prompt, 3)
        for weights in ("fp32", "int4")
        for batch in (1, 2)
        for prompt in (5, 9)
    ]
    assert all(len(one["decode"]["values"]) == 2 for one in found["results"])
    assert found["results"][0]["threads"] == 1 and not found["random_weights"]
    result = call(fixtures / "qwen2", *sizes, "--json", "-")
    assert json.loads(result.stdout)["results"]


def test_random_weights_of_a_shape():
    sizes = ["--prompt", 4, "--new", 2, "--repeat", 1, "--warm-up", 0]
    result = call("--shape", "llama-15m", "--weights", "int4", *sizes, "--json", "-")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["random_weights"] and found["results"][0]["matrix_bytes"] > 10e6


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "give either MODEL or --shape"),
        (["--shape", "llama-9t"], "shape must be one of llama-15m"),
        (
            ["--shape", "llama-15m", "--prompt", 4000],
            "prompt and new must be at most 2048 together",
        ),
        (["--shape", "llama-15m", "--batch", "1,x"], "batch must be numbers separated by commas"),
        (["--shape", "llama-15m", "--batch", "0"], "batch must be an integer, 1 or more"),
        (["--shape", "llama-15m", "--weights", "int3"], "weights must be one of"),
    ],
)
def test_refusals(arguments, message):
    result = call(*arguments)
    assert result.exit_code == 2 and message in result.stderr
