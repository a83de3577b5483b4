"""Sampling as a model's author advises it."""

import asyncio
import json
import shutil

import pytest

from oarlock.llm import loading
from oarlock.llm.engine import LLM, SamplingParams, open_service

QWEN = SamplingParams(temperature=0.7, top_k=20, top_p=0.8, repetition_penalty=1.1)


@pytest.fixture
def folder(fixtures, tmp_path):
    """Qwen2's folder with other defaults."""

    def with_defaults(**fields):
        copy = shutil.copytree(fixtures / "qwen2", tmp_path / "qwen2", dirs_exist_ok=True)
        (copy / "generation_config.json").write_text(json.dumps(fields))
        return copy

    return with_defaults


def test_texts_are_drawn_as_advised_where_nothing_is_said(fixtures, folder):
    llm = LLM(fixtures / "qwen2")
    assert llm.defaults == QWEN
    llm = LLM(folder(do_sample=False, max_new_tokens=5, top_k=0))
    assert llm.defaults == SamplingParams(temperature=0.0, max_tokens=5)
    (result,) = llm.generate("the cat")
    (explicit,) = llm.generate("the cat", llm.defaults)
    assert explicit.completions == result.completions
    assert len(result.completions[0].tokens) == 5
    streamed = sum((one.tokens for one in llm.stream("the cat")), ())
    assert streamed == result.completions[0].tokens
    messages = [{"role": "user", "content": "a"}]
    assert len(llm.chat(messages).completions[0].tokens) <= 5
    assert len(llm.generate("a", SamplingParams(max_tokens=7, ignore_eos=True))[0].completions[0].tokens) == 7  # fmt: skip


def test_they_can_be_off(fixtures):
    assert LLM(fixtures / "qwen2", generation_config="off").defaults == SamplingParams()
    with pytest.raises(ValueError, match="generation_config must be auto or off, got 'vllm'"):
        LLM(fixtures / "qwen2", generation_config="vllm")


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"temperature": -1.0}, "temperature must be .* got -1.0. Mend the file, or say"),
        ({"top_p": 3}, "top_p must be"),
        ({"max_new_tokens": "many"}, "max_new_tokens must be an integer, got 'many'"),
    ],
)
def test_defaults_that_do_not_fit_are_named(folder, fields, message):
    with pytest.raises(ValueError, match=message):
        LLM(folder(**fields))


def test_gguf_files_have_them_too(fixtures):
    """The converter of llama.cpp writes what ``generation_config.json`` says."""
    found = loading.load(fixtures / "qwen2-bf16.gguf").generation
    expected = {"temperature": 0.7, "top_k": 20, "top_p": 0.8, "repetition_penalty": 1.1}
    assert found == pytest.approx(expected, rel=1e-6)
    assert LLM(fixtures / "qwen2-bf16.gguf").defaults.top_k == 20


def test_a_service_tells_them_and_the_beginning(fixtures):
    service = open_service(fixtures / "llama")
    assert service.begin == (1,) and service.generation == {}
    service.close()
    service = open_service(fixtures / "qwen2")
    assert service.begin == () and service.generation["top_k"] == 20
    service.close()
    service = open_service(fixtures / "qwen2", generation_config="off")
    assert service.generation == {}
    asyncio.run(service.drain(0.0))
    service.close()
