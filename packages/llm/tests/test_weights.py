"""Weights of other projects: made-up files, their truncations, and the published ones."""

import struct

import numpy as np
import paddle
import pytest

from oarlock.llm import models, tokenizers, weights


def write_llama2c(path, model):
    """A llama2.c file of version 0, written from its description alone."""
    c = model.config
    state = {key: value.numpy() for key, value in model.state_dict().items()}
    V = c.vocab_size if c.tie_embeddings else -c.vocab_size
    header = (c.hidden_size, c.intermediate_size, c.num_layers, c.num_heads, c.num_kv_heads)
    parts = [state["embedding.weight"]]
    for name in (
        *("attention_norm", "attention.query", "attention.key", "attention.value"),
        *("attention.out", "feed_forward_norm"),
        *("feed_forward.gate", "feed_forward.down", "feed_forward.up"),
    ):
        parts += [state[f"blocks.{i}.{name}.weight"].T for i in range(c.num_layers)]
    parts += [state["norm.weight"], np.zeros([2, c.max_length, c.head_size // 2])]
    if not c.tie_embeddings:
        parts.append(state["head.weight"].T)
    floats = b"".join(np.ascontiguousarray(part, "<f4").tobytes() for part in parts)
    path.write_bytes(struct.pack("<7i", *header, V, c.max_length) + floats)


RWKV_NAMES = {
    "embedding.weight": "emb.weight",
    "embedding_norm": "blocks.0.ln0",
    "attention_norm": "ln1",
    "feed_forward_norm": "ln2",
    "attention.mix_key": "att.time_mix_k",
    "attention.mix_value": "att.time_mix_v",
    "attention.mix_receptance": "att.time_mix_r",
    "attention.log_decay": "att.time_decay",
    "attention.bonus": "att.time_first",
    "attention.out": "att.output",
    "attention.": "att.",
    "feed_forward.mix_key": "ffn.time_mix_k",
    "feed_forward.mix_receptance": "ffn.time_mix_r",
    "feed_forward.": "ffn.",
}


def rwkv_tensors(model):
    """rwkv.cpp's names and values of an RWKV-4."""
    tensors = {}
    for name, value in model.state_dict().items():
        value = value.numpy()
        if name.startswith("norm."):
            name = name.replace("norm", "ln_out")
        for ours, theirs in RWKV_NAMES.items():
            if ours in name:
                value = -np.exp(value) if ours.endswith("log_decay") else value
                name = name.replace(ours, theirs)
                break
        tensors[name] = value if name == "emb.weight" else value.T
    return tensors


def write_rwkv(path, model, *, kind=0, tensors=None, magic=0x67676D66, version=101, header_kind=0):
    c = model.config
    out = struct.pack(
        "<6i", magic, version, c.vocab_size, c.hidden_size, c.num_layers, header_kind or kind
    )
    for name, value in (rwkv_tensors(model) if tensors is None else tensors).items():
        key = name.encode()
        out += struct.pack("<3i", value.ndim, len(key), kind)
        out += struct.pack(f"<{value.ndim}i", *value.shape[::-1]) + key
        out += np.ascontiguousarray(value, ["<f4", "<f2"][kind]).tobytes()
    path.write_bytes(out)


@pytest.mark.parametrize("tie", [True, False])
def test_llama2c_file_loads_exactly(small_model, tokens, tmp_path, tie):
    model = small_model("llama", tie_embeddings=tie, rope_theta=10000.0)
    write_llama2c(tmp_path / "model.bin", model)
    loaded = weights.load_llama2c(tmp_path / "model.bin")
    assert loaded.config == model.config
    assert (loaded(tokens).numpy() == model(tokens).numpy()).all()


@pytest.fixture
def llama2c_file(small_model, tmp_path):
    write_llama2c(tmp_path / "model.bin", small_model("llama", num_layers=1))
    return tmp_path / "model.bin"


@pytest.mark.parametrize(
    "length, piece",
    [
        (0, "the header"),
        (27, "the header"),
        (28, "embedding.weight"),
        (28 + 4 * 29 * 24 + 4 * 24 + 8, r"blocks.\*.attention.query.weight"),
        (-4, "head.weight"),
        (-4 * 29 * 24 - 4, "the rotary tables"),
    ],
)
def test_truncated_llama2c_files_name_tensor_and_bytes(llama2c_file, length, piece):
    whole = llama2c_file.read_bytes()
    found = length if length >= 0 else len(whole) + length
    llama2c_file.write_bytes(whole[:length])
    message = rf"model.bin is truncated in {piece}: expected \d+ bytes or more, found {found}"
    with pytest.raises(ValueError, match=message):
        weights.load_llama2c(llama2c_file)


def test_misfitting_llama2c_files_are_refused(llama2c_file):
    whole = llama2c_file.read_bytes()
    llama2c_file.write_bytes(whole + b"abc")
    with pytest.raises(ValueError, match=f"too long: .* {len(whole)} bytes, found {len(whole)+3}"):
        weights.load_llama2c(llama2c_file)
    llama2c_file.write_bytes(struct.pack("<7i", 0x616B3432, 1, *[8] * 5))
    with pytest.raises(ValueError, match="of version 1; export it with version 0"):
        weights.load_llama2c(llama2c_file)
    llama2c_file.write_bytes(struct.pack("<7i", 24, 40, 0, 6, 2, 29, 16))
    with pytest.raises(ValueError, match="no llama2.c file: .*num_layers must be a positive"):
        weights.load_llama2c(llama2c_file)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        weights.load_llama2c(llama2c_file.with_name("nowhere"))


def test_rwkv_file_loads_exactly(small_model, tokens, tmp_path):
    model, path = small_model("rwkv4"), tmp_path / "rwkv.bin"
    write_rwkv(path, model)
    loaded = weights.load_rwkv_cpp(path)
    assert loaded.config == model.config
    # the decay goes through exp and log, which rounds
    np.testing.assert_allclose(loaded(tokens).numpy(), model(tokens).numpy(), atol=2e-6)
    write_rwkv(path, model, kind=1)
    np.testing.assert_allclose(
        weights.load_rwkv_cpp(path)(tokens).numpy(), model(tokens).numpy(), atol=0.05
    )


def test_misfitting_rwkv_files_are_refused(small_model, tmp_path):
    model, path = small_model("rwkv4", num_layers=1), tmp_path / "rwkv.bin"
    tensors = rwkv_tensors(model)

    def refused(message, **options):
        write_rwkv(path, model, **options)
        with pytest.raises(ValueError, match=f"rwkv.bin.*{message}"):
            weights.load_rwkv_cpp(path)

    refused("no rwkv.cpp file: it begins with 0x1, 101", magic=1)
    refused("expected 0x67676d66 and one of", version=99)
    refused(r"quantised \(type 2\)", header_kind=2)
    less = {k: v for k, v in tensors.items() if k != "blocks.0.att.key.weight"}
    refused("blocks.0.attention.key.weight is missing", tensors=less)
    more = tensors | {"blocks.0.att.gate.weight": np.zeros([2, 2])}
    refused("blocks.0.att.gate.weight is not in the model", tensors=more)
    wide = tensors | {"head.weight": np.zeros([29, 17])}
    refused(r"head.weight has shape \(17, 29\), expected \(16, 29\)", tensors=wide)
    up = tensors | {"blocks.0.att.time_decay": np.zeros(16)}
    refused("time_decay must be below 0, got 0.0", tensors=up)
    refused("tensor 0 has 4 dimensions", tensors={"emb.weight": np.zeros([1, 1, 2, 2])})


def test_truncated_rwkv_files_name_tensor_and_bytes(small_model, tmp_path):
    model, path = small_model("rwkv4", num_layers=1), tmp_path / "rwkv.bin"
    write_rwkv(path, model)
    whole = path.read_bytes()
    for length, piece in ((0, "the header"), (30, "the header of tensor 0"), (99, "emb.weight")):
        path.write_bytes(whole[:length])
        message = rf"truncated in {piece}: expected \d+ bytes or more, found {length}"
        with pytest.raises(ValueError, match=message):
            weights.load_rwkv_cpp(path)
    path.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=f"truncated in .*found {len(whole) - 1}"):
        weights.load_rwkv_cpp(path)


# What llama2.c's own test expects of 200 steps at temperature 0.
STORY = """Once upon a time, there was a little girl named Lily. She loved to play outside in the \
park. One day, she saw a big, red ball. She wanted to play with it, but it was too high.
Lily's mom said, "Lily, let's go to the park." Lily was sad and didn't know what to do. She said, \
"I want to play with your ball, but I can't find it."
Lily was sad and didn't know what to do. She said, "I'm sorry, Lily. I didn't know what to do."
Lily didn't want to help her mom, so"""


def test_stories260k_tells_its_story(shared_data):
    folder = shared_data("weights/stories260K")
    model = weights.load_llama2c(folder / "stories260K.bin")
    tokenizer = tokenizers.Llama2cTokenizer.from_file(folder / "tok512.bin")
    begin = paddle.to_tensor([[tokenizer.special_tokens["<s>"]]])
    text = model.generate(begin, max_new_tokens=199)[0].numpy()
    assert tokenizer.decode(text) == STORY
    assert tokenizer.encode(STORY) == text[1:].tolist()


def test_tiny_rwkv_gives_its_reference_logits(shared_data):
    folder = shared_data("weights/tiny_rwkv")
    model = weights.load_rwkv_cpp(folder / "tiny-rwkv-4v0-660K-FP32.bin")
    expected = np.fromfile(folder / "expected-logits-4v0-660K.bin", "<f4")
    prompt = paddle.to_tensor([tokenizers.ByteTokenizer().encode('"in')])
    np.testing.assert_allclose(model(prompt)[0, -1].numpy(), expected, atol=1e-5)
    cache = model.new_cache()
    for position in range(3):
        logits = model(prompt[:, position : position + 1], cache)
    np.testing.assert_allclose(logits[0, -1].numpy(), expected, atol=1e-5)


def test_shared_weights_survive_our_own_format(shared_data, tmp_path):
    model = weights.load_llama2c(shared_data("weights/stories260K") / "stories260K.bin")
    models.save(model, tmp_path)
    tokens = paddle.to_tensor([[1, 403, 407]])
    assert (models.load(tmp_path).eval()(tokens).numpy() == model(tokens).numpy()).all()
