"""LoRA folders of PEFT."""

import json
import shutil

import numpy as np
import paddle
import pytest
import safetensors.numpy

from oarlock.llm import loading


def test_changed_model_gives_the_logits_of_peft(fixtures):
    checkpoint = loading.load(fixtures / "llama")
    adapter = loading.load_adapter(fixtures / "llama-lora", checkpoint)
    model, _ = loading.load_model(fixtures / "llama")
    state = model.state_dict()
    assert len(adapter.changes) == 6
    for name, change in adapter.changes.items():
        assert change.a.shape[1] == change.b.shape[0] in (2, 4)
        state[name].set_value(state[name].numpy() + change.delta())
    tokens = paddle.to_tensor([[3, 77, 270, 12, 0, 131, 200, 5, 9, 64]])
    expected = np.load(fixtures / "llama-lora.npy")
    np.testing.assert_allclose(model(tokens).numpy()[:, -5:], expected, atol=1e-4)
    assert abs(np.load(fixtures / "llama.npy") - expected).max() > 0.01


@pytest.fixture
def folder(fixtures, tmp_path):
    return shutil.copytree(fixtures / "llama-lora", tmp_path / "lora")


def test_scale_of_rank_stabilised_adapters(folder, fixtures):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"use_rslora": True}))
    adapter = loading.load_adapter(folder, loading.load(fixtures / "llama"))
    assert adapter.changes["blocks.0.attention.query.weight"].scale == pytest.approx(8 / 2)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"peft_type": "IA3"}, "peft_type must be 'LORA', got 'IA3'"),
        ({"bias": "all"}, "bias must be 'none'"),
        ({"use_dora": True}, "use_dora must be False"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save must be absent"),
        ({"rank_pattern": {}}, "rank of model.layers.*down_proj must be 2, got 4"),
        ({"alpha_pattern": {"q_proj": "x"}}, "alpha_pattern must be numbers"),
    ],
)
def test_other_adapters_are_refused(folder, fixtures, fields, message):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    with pytest.raises(ValueError, match=message):
        loading.load_adapter(folder, loading.load(fixtures / "llama"))


def test_misfits_are_named(folder, fixtures):
    path = folder / "adapter_model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    start = "base_model.model.model.layers.0.self_attn."
    del tensors[f"{start}q_proj.lora_A.weight"]
    tensors[f"{start}v_proj.lora_B.weight"] = np.zeros([16, 3], np.float32)
    tensors["base_model.model.model.layers.7.self_attn.q_proj.lora_A.weight"] = np.zeros(
        [4, 32], "f4"
    )
    tensors["odd"] = np.zeros([1], np.float32)
    safetensors.numpy.save_file(tensors, path)
    with pytest.raises(ValueError) as error:
        loading.load_adapter(folder, loading.load(fixtures / "llama"))
    for part in (
        "odd is no matrix of a LoRA",
        "layers.0.self_attn.q_proj has only lora_B",
        "layers.0.self_attn.v_proj: A (4, 32) and B (16, 3) do not give (16, 32)",
        "layers.7.self_attn.q_proj is no part of the model",
    ):
        assert part in str(error.value)
