"""`convert` and `quantize` at the command line."""

import shutil

import pytest
from typer.testing import CliRunner

from oarlock.llm import loading
from oarlock.llm.cli.main import app


def call(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)])


def test_convert_and_quantize(fixtures, tmp_path):
    result = call("convert", fixtures / "qwen2", tmp_path / "x.gguf", "--dtype", "fp16")
    assert result.exit_code == 0, result.output
    assert f"wrote {tmp_path / 'x.gguf'}: " in result.stdout and "MB float16" in result.stdout
    result = call("convert", tmp_path / "x.gguf", tmp_path / "folder")
    assert result.exit_code == 0, result.output
    assert loading.load(tmp_path / "folder").format == "hugging face"
    result = call("convert", fixtures / "glm", tmp_path / "own", "--format", "oarlock")
    assert loading.load(tmp_path / "own").format == "oarlock"
    result = call("quantize", tmp_path / "folder", tmp_path / "q.gguf", "--weights", "int4")
    assert result.exit_code == 0, result.output
    assert "kept as floats" in result.stdout and "blk.0.ffn_down.weight" in result.stdout
    result = call("info", tmp_path / "q.gguf")
    assert "q4_0" in result.stdout and "0.7" in result.stdout
    result = call("generate", tmp_path / "q.gguf", "The", "--weights", "int4", "--max-tokens", 3)
    assert result.exit_code == 0 and result.stdout.startswith("The")


def test_what_is_rounded_anew_is_said(fixtures, tmp_path):
    result = call("quantize", fixtures / "llama-awq", tmp_path / "x.gguf", "--weights", "int4")
    assert (
        "rounded anew, as their codes have no place: 7 matrices of awq of 4 bits" in result.stdout
    )
    model = fixtures / "llama-q4_k_m.gguf"
    result = call("generate", model, "The", "--weights", "int4", "--max-tokens", 1)
    assert (
        "rounded anew to int4, which does not hold their codes: 4 matrices of q4_k" in result.stderr
    )
    assert call("generate", model, "The", "--weights", "fp32", "--max-tokens", 1).stderr == ""


def test_what_is_left_out_is_said(fixtures, tmp_path):
    result = call("convert", fixtures / "glm", tmp_path / "x.gguf")
    assert "left out: which tokens begin and end texts" in result.stdout
    folder = shutil.copytree(fixtures / "qwen2", tmp_path / "qwen2")
    (folder / "generation_config.json").write_text('{"max_new_tokens": 9}')
    result = call("convert", folder, tmp_path / "y.gguf")
    assert "left out: the author's default of max_tokens, 9" in result.stdout


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["convert", "llama", "x.gguf"], "is there already"),
        (["convert", "llama", "y", "--format", "hugging_face"], "format must be one of"),
        (["convert", "llama-q4_k_m.gguf", "y"], "dtype must be fp32"),
        (["convert", "no-such-model", "y"], "no-such-model"),
        (["quantize", "llama", "y.gguf", "--weights", "int3"], "weights must be one of int8, int4"),
        (["quantize", "llama", "x.gguf", "--weights", "int8"], "is there already"),
    ],
)
def test_refusals(fixtures, tmp_path, arguments, message):
    (tmp_path / "x.gguf").write_bytes(b"mine")
    command, source, target, *options = arguments
    result = call(command, fixtures / source, tmp_path / target, *options)
    assert result.exit_code == 2 and "Traceback" not in result.output
    assert message in result.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["x.gguf"]
    assert (tmp_path / "x.gguf").read_bytes() == b"mine"


def test_force_replaces(fixtures, tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"old")
    options = ["--weights", "int8", "--force", "--threads", 1]
    result = call("quantize", fixtures / "llama", tmp_path / "x.gguf", *options)
    assert result.exit_code == 0, result.output
    assert loading.load(tmp_path / "x.gguf").format == "gguf"
