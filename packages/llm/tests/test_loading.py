"""Folders and files that the real libraries wrote (``parity/record_files.py``) load unchanged."""

import json
import shutil
import struct

import ml_dtypes
import numpy as np
import paddle
import pytest

from oarlock.llm import loading, models, tokenizers
from oarlock.llm.loading.load import build
from oarlock.llm.loading.others import shapes

FOLDERS = ["gpt2", "bloom", "llama", "qwen2", "mistral", "mixtral", "glm", "chatglm"]
FILES = {
    "gpt2-q8_0.gguf": "gpt2-q8_0",
    "bloom-q8_0.gguf": "bloom-q8_0",
    "llama-f16.gguf": "llama",
    "qwen2-bf16.gguf": "qwen2",
    "mistral-q8_0.gguf": "mistral-q8_0",
    "mixtral-f16.gguf": "mixtral",
    "llama-q4_k_m.gguf": "llama-q4_k_m",
}
TOKENS = np.array([[3, 77, 270, 12, 0, 131, 200, 5, 9, 64]])


@pytest.mark.parametrize(
    "name, logits", [*zip(FOLDERS, FOLDERS), *FILES.items()], ids=[*FOLDERS, *FILES]
)
def test_logits_are_those_of_transformers(fixtures, name, logits):
    model, tokenizer = loading.load_model(fixtures / name)
    found = model(paddle.to_tensor(TOKENS % model.config.vocab_size)).numpy()
    expected = np.load(fixtures / f"{logits}.npy")
    np.testing.assert_allclose(found[:, -expected.shape[1] :], expected, atol=1e-4)
    assert not model.training
    if tokenizer is not None:
        assert tokenizer.vocab_size == model.config.vocab_size


@pytest.mark.parametrize("name", [*FOLDERS, *FILES])
def test_parameters_are_those_of_the_model(fixtures, name):
    checkpoint = loading.load(fixtures / name)
    expected = shapes(checkpoint.family, checkpoint.config)
    found = {key: tuple(value.shape) for key, value in checkpoint.parameters.items()}
    assert found == expected
    widened = loading.load(fixtures / name, float32=True).parameters
    for key, value in checkpoint.parameters.items():
        if isinstance(value, loading.BlockArray):
            value = value.dequantize()
        assert widened[key].dtype == np.float32
        assert (widened[key] == np.asarray(value).astype(np.float32)).all()


def test_formats_are_the_files_own(fixtures):
    checkpoint = loading.load(fixtures / "llama-q4_k_m.gguf")
    query = checkpoint.parameters["blocks.0.attention.query.weight"]
    assert isinstance(query, loading.BlockArray) and query.transposed
    assert checkpoint.parameters.format("blocks.0.feed_forward.down.weight") == "q6_k"
    assert checkpoint.parameters.format("blocks.0.attention.out.weight") == "q5_0"
    assert checkpoint.parameters.formats()["float32"] == 3 * 256 * 4
    stored = loading.load(fixtures / "llama").parameters["blocks.0.attention.value.weight"]
    assert stored.dtype == ml_dtypes.bfloat16
    # a view of the file, which is mapped into memory
    plain = loading.load(fixtures / "llama-f16.gguf").parameters["embedding.weight"]
    assert not plain.flags.owndata and plain.dtype == np.float16
    with pytest.raises(ValueError, match="loaded with float32=True, but .* is q6_k"):
        build(checkpoint)


def test_what_the_configurations_say(fixtures):
    configs = {name: loading.load(fixtures / name).config for name in FOLDERS}
    assert configs["llama"].rope_scaling == models.rope.RopeScaling(
        kind="llama3", factor=4.0, original_length=16, low_turns=1.0, high_turns=4.0
    )
    assert (configs["mistral"].head_size, configs["mistral"].window) == (12, 6)
    assert configs["qwen2"].qkv_bias and configs["qwen2"].tie_embeddings
    assert (configs["mixtral"].num_experts, configs["mixtral"].experts_per_token) == (3, 2)
    assert loading.load(fixtures / "chatglm").family == "glm"
    for config in configs.values():  # scaled positions go through our own format too
        assert type(config).from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_text_of_a_folder_and_of_a_file(fixtures):
    qwen, gguf = (loading.load(fixtures / name).text for name in ("qwen2", "qwen2-bf16.gguf"))
    assert (qwen.bos, qwen.eos, qwen.adds_bos) == (269, (271, 269), False)
    assert (gguf.bos, gguf.eos, gguf.adds_bos) == (269, (271,), False)
    assert qwen.chat_template == gguf.chat_template and "<|im_start|>" in qwen.chat_template
    assert (
        qwen.template_tokens
        == gguf.template_tokens
        == {
            "bos_token": "<|endoftext|>",
            "eos_token": "<|im_end|>",
        }
    )
    llama = loading.load(fixtures / "llama").text
    assert llama.encode("the cat")[0] == llama.bos == 1 and llama.adds_bos and llama.eos == (2,)
    assert llama.encode("<s>a", special=True).count(1) == 1
    assert llama.encode("<s>a").count(1) == 1
    mixtral = loading.load(fixtures / "mixtral").text
    assert mixtral.tokenizer is None
    with pytest.raises(ValueError, match="tokenizer is absent"):
        mixtral.encode("a")


def test_generation_defaults(fixtures, copied):
    assert loading.load(fixtures / "qwen2").generation == {
        "temperature": 0.7,
        "top_k": 20,
        "top_p": 0.8,
        "repetition_penalty": 1.1,
    }
    folder = copied("qwen2")
    (folder / "generation_config.json").write_text('{"do_sample": false}')
    assert loading.load(folder).generation == {"temperature": 0.0}


TEXTS = [
    "The cat sat on the mat.",
    "  two  spaces",
    "秦川雄帝宅 é🙂",
    "1,234 <s> <|im_end|>\n\n\tx",
    " ",
]


@pytest.mark.parametrize("name", ["llama", "mistral"])
def test_kinds_of_tokenizers_agree(fixtures, name):
    """SentencePiece's own model, its tokenizer.json, and the pieces in a GGUF file."""
    folder = fixtures / name
    model = tokenizers.SentencePieceTokenizer.from_file(folder / "tokenizer.model")
    file = {"llama": "llama-f16.gguf", "mistral": "mistral-q8_0.gguf"}[name]
    others = [loading.load(fixtures / file).text.tokenizer]
    if name == "llama":
        others.append(tokenizers.BPETokenizer.from_file(folder / "tokenizer.json"))
    for other in others:
        assert other.adds_space and model.adds_space
        for text in TEXTS:
            ids = model.encode(text)
            assert other.encode(text) == ids
            assert other.decode(ids) == model.decode(ids) == text
            assert [other.token_bytes(i) for i in ids] == [model.token_bytes(i) for i in ids]
            assert model._processor.DecodeIds(ids) == text


@pytest.mark.parametrize("name", ["gpt2", "bloom", "qwen2"])
def test_byte_level_tokenizers_agree(fixtures, name):
    file = {"gpt2": "gpt2-q8_0", "bloom": "bloom-q8_0", "qwen2": "qwen2-bf16"}[name]
    folder = loading.load(fixtures / name).text.tokenizer
    gguf = loading.load(fixtures / f"{file}.gguf").text.tokenizer
    assert folder.special_tokens == gguf.special_tokens and len(gguf.special_tokens) == 3
    for text in TEXTS:
        for special in (False, True):
            assert folder.encode(text, special=special) == gguf.encode(text, special=special)
        ids = folder.encode(text, special=True)
        assert (
            folder.decode(ids) == folder._tokenizer.decode(ids, skip_special_tokens=False) == text
        )


def test_max_length_can_be_shortened(fixtures):
    assert loading.load(fixtures / "llama", max_length=7).config.max_length == 7
    model, _ = loading.load_model(fixtures / "llama", max_length=7)
    assert model.rope_cos.shape[0] == 7
    with pytest.raises(ValueError, match=r"max_length must be in 1..32, got 33"):
        loading.load(fixtures / "llama", max_length=33)


def test_our_own_folders(small_model, tokens, tmp_path):
    for name in models.names():
        model = small_model(name)
        models.save(model, tmp_path / name)
        loaded, tokenizer = loading.load_model(tmp_path / name)
        assert tokenizer is None and loaded.config == model.config
        assert (loaded(tokens).numpy() == model.eval()(tokens).numpy()).all()


def test_llama2c_and_rwkv_cpp_files(shared_data):
    path = shared_data("weights/stories260K") / "stories260K.bin"
    checkpoint = loading.load(path)
    assert checkpoint.format == "llama2.c" and checkpoint.text.tokenizer.vocab_size == 512
    assert checkpoint.text.encode("Once upon a time") == [1, 403, 407, 261, 378]
    assert checkpoint.text.eos == (2, 1)
    query = checkpoint.parameters["blocks.0.attention.query.weight"]
    assert query.base is not None  # a view
    path = shared_data("weights/tiny_rwkv") / "tiny-rwkv-4v0-660K-FP32.bin"
    model, tokenizer = loading.load_model(path)
    assert models.name_of(model) == "rwkv4" and tokenizer is None


@pytest.fixture
def copied(fixtures, tmp_path):
    """A folder of the fixtures that may be changed."""
    return lambda name: shutil.copytree(fixtures / name, tmp_path / name)


def changed(path, **fields):
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, **fields}))


@pytest.mark.parametrize(
    "name, fields, message",
    [
        ("llama", {"model_type": "mamba"}, "model_type must be one of bloom, .*qwen2, got 'mamba'"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act must be 'silu', got 'gelu'"),
        ("llama", {"attention_bias": True}, "attention_bias must be False"),
        ("llama", {"mlp_bias": True}, "mlp_bias must be False"),
        ("llama", {"num_hidden_layers": "2"}, "num_hidden_layers must be an integer, got '2'"),
        ("llama", {"hidden_size": None}, "config.json has no hidden_size"),
        ("llama", {"num_hidden_layers": 10**9}, "num_layers must be at most 21"),
        ("llama", {"vocab_size": 10**15}, "vocab_size must be at most"),
        ("llama", {"max_position_embeddings": 10**12}, "max_length must be at most"),
        ("llama", {"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}, "got 'longrope'"),
        ("llama", {"rope_scaling": {"rope_type": "linear"}}, "rope_scaling has no factor"),
        ("llama", {"intermediate_size": 64}, r"mlp.gate_proj.weight has shape \(48, 32\), expected \(64, 32\)"),
        ("llama", {"quantization_config": {"quant_method": "fp8"}}, "quant_method must be one of awq, compressed-tensors, gptq, got 'fp8'"),
        ("gpt2", {"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantization_config must be absent"),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}, "max_window_layers must be 0 or"),
        ("glm", {"partial_rotary_factor": 0.25}, "partial_rotary_factor must be 0.5, got 0.25"),
        ("glm", {"head_dim": 16}, "head_dim must be 8"),
        ("chatglm", {"add_bias_linear": True}, "add_bias_linear must be False"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ("bloom", {"n_head": 5}, "hidden_size must be a multiple of num_heads = 5"),
    ],
)  # fmt: skip
def test_unfit_configurations_are_refused(copied, name, fields, message):
    folder = copied(name)
    changed(folder / "config.json", **fields)
    with pytest.raises(ValueError, match=message):
        loading.load(folder)


def test_all_misfits_are_named(copied):
    folder = copied("llama")
    changed(folder / "config.json", num_hidden_layers=1, tie_word_embeddings=False, vocab_size=303)
    with pytest.raises(ValueError) as error:
        loading.load(folder)
    text = str(error.value)
    assert "model.layers.1.mlp.up_proj.weight is not of this model" in text
    assert "lm_head.weight has shape (304, 32), expected (303, 32)" in text
    folder = copied("mistral")
    changed(folder / "config.json", num_hidden_layers=2)
    with pytest.raises(ValueError, match="model.layers.1.input_layernorm.weight is missing"):
        loading.load(folder)


def test_prefixes_and_tied_heads_may_be_left_out_or_there(copied, tmp_path):
    import safetensors.numpy

    folder = copied("gpt2")
    path = folder / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    bare = {key.removeprefix("transformer."): value for key, value in tensors.items()}
    bare["h.0.attn.bias"] = np.ones([1, 1, 32, 32], np.float32)
    safetensors.numpy.save_file(bare, path)
    model, _ = loading.load_model(folder)
    assert (model.embedding.weight.numpy() == tensors["transformer.wte.weight"]).all()
    folder = copied("qwen2")
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    assert "head.weight" not in loading.load(folder).parameters


def test_broken_shards_are_named(copied):
    folder = copied("bloom")
    index = folder / "model.safetensors.index.json"
    whole = json.loads(index.read_text())
    files = sorted(set(whole["weight_map"].values()))
    assert len(files) > 1
    name = next(iter(whole["weight_map"]))
    for weight_map, message in (
        ({**whole["weight_map"], name: files[-1]}, "disagree on where .* is"),
        ({**whole["weight_map"], "no.such": files[0]}, "names tensors that are not there: no.such"),
        ({**whole["weight_map"], "x": "../other"}, "files must lie beside it"),
    ):
        index.write_text(json.dumps({**whole, "weight_map": weight_map}))
        with pytest.raises(ValueError, match=message):
            loading.load(folder)
    index.write_text(json.dumps(whole))
    (folder / files[0]).unlink()
    with pytest.raises(FileNotFoundError, match=files[0]):
        loading.load(folder)


def test_other_paths_are_refused(tmp_path):
    with pytest.raises(ValueError, match="must hold config.json"):
        loading.load(tmp_path)
    (tmp_path / "a.onnx").write_bytes(b"abcdef")
    with pytest.raises(ValueError, match=r"must be a folder, a .gguf file.*b'abcd'"):
        loading.load(tmp_path / "a.onnx")
    with pytest.raises(FileNotFoundError):
        loading.load(tmp_path / "nowhere")
    (tmp_path / "b.gguf").write_bytes(b"GGUF" + struct.pack("<I", 1))
    with pytest.raises(ValueError, match=r"version \(2, 3\)"):
        loading.load(tmp_path / "b.gguf")
