"""The engine on files that the real libraries wrote, and on their codes."""

import dataclasses

import numpy as np
import pytest
from oarlock.native import quant

from oarlock.llm import loading
from oarlock.llm.engine import LLM, packing
from oarlock.llm.engine.sampling import log_softmax
from oarlock.llm.loading import blocks

LOGITS = {
    "gpt2": "gpt2",
    "bloom": "bloom",
    "llama": "llama",
    "qwen2": "qwen2",
    "mistral": "mistral",
    "mixtral": "mixtral",
    "glm": "glm",
    "chatglm": "chatglm",
    "gpt2-q8_0.gguf": "gpt2-q8_0",
    "bloom-q8_0.gguf": "bloom-q8_0",
    "llama-f16.gguf": "llama",
    "qwen2-bf16.gguf": "qwen2",
    "mistral-q8_0.gguf": "mistral-q8_0",
    "mixtral-f16.gguf": "mixtral",
    "llama-q4_k_m.gguf": "llama-q4_k_m",
}
TOKENS = np.array([3, 77, 270, 12, 0, 131, 200, 5, 9, 64])


@pytest.mark.parametrize("name", LOGITS)
def test_scores_are_those_of_the_library_that_wrote_the_file(fixtures, name):
    llm = LLM(fixtures / name)
    tokens = TOKENS % llm.engine.model.vocab
    logprobs = log_softmax(np.load(fixtures / f"{LOGITS[name]}.npy")[0])
    found = np.array([one.logprob for one in llm.score([tokens])[0]])
    # Files may hold the logits of the last positions only.
    wanted = [
        row[token] for row, token in zip(logprobs[:-1], tokens[len(tokens) - len(logprobs) + 1 :])
    ]
    np.testing.assert_allclose(found[-len(wanted) :], wanted, atol=2e-4)


@pytest.mark.parametrize("name", [name for name in LOGITS if "q8_0" in name])
def test_codes_of_eight_bits_stay_as_they_are(fixtures, name):
    parameters = loading.load(fixtures / name).parameters
    coded = [one for one in parameters.values() if isinstance(one, blocks.BlockArray)]
    coded = [one for one in coded if one.transposed]
    assert len(coded) >= 4 and all(one.format.name == "q8_0" for one in coded)
    for one in coded:
        assert packing._codes(one, "int8") is not None
        packed = packing._matrix([one], "int8")
        np.testing.assert_array_equal(packed.dequantize(), one.dequantize())


def test_codes_of_four_bits_stay_as_they_are():
    rng = np.random.default_rng(0)
    form = blocks.FORMATS[2]  # Q4_0
    rows = rng.integers(0, 256, (48, 3 * form.num_bytes)).astype(np.uint8)
    scales = rng.standard_normal((48, 3)).astype(np.float16).view(np.uint8).reshape(48, 3, 2)
    rows.reshape(48, 3, form.num_bytes)[..., :2] = scales
    coded = blocks.BlockArray(format=form, rows=rows, transposed=True)
    packed = packing._matrix([coded, coded], "int4")
    np.testing.assert_array_equal(packed.dequantize(), np.tile(coded.dequantize(), (1, 2)))
    # Eight bits hold them too; other codes are rounded anew.
    wider = packing._matrix([coded], "int8").dequantize()
    np.testing.assert_array_equal(wider, coded.dequantize())
    form = blocks.FORMATS[3]  # Q4_1
    other = blocks.BlockArray(format=form, rows=np.zeros((4, form.num_bytes), np.uint8)).T
    assert not packing.keeps(other, "int8") and not packing.keeps(other, "int4")
    assert packing.keeps(coded, "int8") and packing.keeps(coded, "int4")


def test_codes_stay_beside_those_that_are_rounded_anew():
    """Queries, keys and values are one matrix for the kernels, and may be coded differently in a file."""
    rng = np.random.default_rng(0)
    form = blocks.FORMATS[2]  # Q4_0
    rows = rng.integers(0, 256, (16, 2 * form.num_bytes)).astype(np.uint8)
    rows.reshape(16, 2, form.num_bytes)[..., :2] = np.float16([0.25]).view(np.uint8)
    coded = blocks.BlockArray(format=form, rows=rows, transposed=True)
    plain = rng.standard_normal((64, 16)).astype(np.float32)
    for format in ("int4", "int8"):
        found = packing._matrix([coded, plain], format).dequantize()
        np.testing.assert_array_equal(found[:, :16], coded.dequantize())
        wanted = quant.Matrix.pack(plain, format=format).dequantize()
        np.testing.assert_array_equal(found[:, 16:], wanted)


def test_what_is_rounded_anew_is_told(fixtures):
    def told(name, weights):
        return LLM(fixtures / name, weights=weights).opened.rounded_anew

    assert told("llama-q4_k_m.gguf", "int4") == {"q6_k": 3, "q4_k": 4, "q5_0": 1}
    assert told("llama-q4_k_m.gguf", "fp32") == told("llama", "int4") == {}
    assert told("gpt2-q8_0.gguf", "int8") == {} and told("gpt2-q8_0.gguf", "int4") == {"q8_0": 6}
    assert (
        told("llama-gptq4", "int4")
        == told("llama-gptq4", "int8")
        == told("llama-awq", "int8")
        == {}
    )
    assert told("llama-awq", "int4") == {"awq of 4 bits": 7}
    assert told("llama-gptq4-ordered", "int8") == {"gptq of 4 bits": 7}


def test_models_without_a_limit_get_the_one_asked_for(fixtures):
    assert LLM(fixtures / "bloom").engine.model.max_length == packing.UNLIMITED
    assert LLM(fixtures / "bloom", max_length=4000).engine.model.max_length == 4000
    assert LLM(fixtures / "llama", max_length=32).engine.model.max_length == 32


def test_dynamic_scaling_keeps_to_the_original_length(small_model):
    from oarlock.llm import models
    from oarlock.llm.models.rope import RopeScaling

    config = dataclasses.replace(
        small_model("llama").config,
        max_length=64,
        rope_scaling=RopeScaling(kind="dynamic", factor=4.0, original_length=16),
    )
    assert LLM(models.create("llama", config)).engine.max_length == 16
