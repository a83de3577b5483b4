"""Models by name and saved folders: what is refused, and how."""

import json

import numpy as np
import paddle
import pytest

from oarlock.llm import models


def test_unknown_names_propose_near_ones(small_config):
    with pytest.raises(ValueError, match="did you mean 'llama'"):
        models.create("lama", small_config("llama"))
    with pytest.raises(ValueError, match="known: bloom, glm, gpt, llama, moe, rwkv4"):
        models.config_class("zzz")


def test_configuration_of_another_model_is_refused(small_config):
    with pytest.raises(ValueError, match="config of 'gpt' must be a GPTConfig, got LlamaConfig"):
        models.create("gpt", small_config("llama"))
    with pytest.raises(ValueError, match="must be a LlamaConfig, got MoEConfig"):
        models.create("llama", small_config("moe"))


@pytest.mark.parametrize("seed", ["x", -1, 0.5, None, True])
def test_wrong_seed_is_refused(small_config, seed):
    with pytest.raises(ValueError, match="seed must be an integer, 0 or above, got"):
        models.create("llama", small_config("llama"), seed=seed)


def test_name_of_a_model(small_model):
    assert models.name_of(small_model("glm")) == "glm"
    with pytest.raises(ValueError, match="got Linear"):
        models.name_of(paddle.nn.Linear(2, 2))


@pytest.fixture
def folder(small_model, tmp_path):
    models.save(small_model("llama"), tmp_path)
    return tmp_path


def test_misfitting_tensors_are_named(folder):
    description = json.loads((folder / "config.json").read_text())
    description["config"] |= {"num_layers": 3, "vocab_size": 30}
    (folder / "config.json").write_text(json.dumps(description))
    with pytest.raises(ValueError) as error:
        models.load(folder)
    assert "blocks.2.attention.query.weight is missing" in str(error.value)
    assert "embedding.weight has shape (29, 24), expected (30, 24)" in str(error.value)
    description["config"] |= {"num_layers": 1, "vocab_size": 29}
    (folder / "config.json").write_text(json.dumps(description))
    with pytest.raises(ValueError, match="blocks.1.attention.query.weight is not in the model"):
        models.load(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"model": "llama"}', "\xff"])
def test_broken_description_is_refused(folder, text):
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match="config.json must hold a JSON object with 'model'"):
        models.load(folder)


def test_missing_files_are_named(folder, tmp_path):
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="model.safetensors"):
        models.load(folder)
    with pytest.raises(FileNotFoundError, match="config.json"):
        models.load(tmp_path / "nowhere")


def test_interrupted_save_keeps_the_old_model(folder, small_model, monkeypatch):
    before = models.load(folder)

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        models.save(small_model("llama", num_layers=1), folder)
    after = models.load(folder)
    for a, b in zip(before.parameters(), after.parameters()):
        assert np.array_equal(a.numpy(), b.numpy())
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_only_float32_models_are_saved(small_model, tmp_path):
    with pytest.raises(ValueError, match="must be float32 to be saved, but .* is paddle.float64"):
        models.save(small_model("llama").to(dtype="float64"), tmp_path)
