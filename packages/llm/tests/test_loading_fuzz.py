"""Broken files of every format: a ValueError that says so, in little memory; never anything else."""

import shutil
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oarlock.llm import loading
from oarlock.llm.loading.gguf_file import read_gguf
from oarlock.llm.tokenizers import BPETokenizer, SentencePieceTokenizer
from oarlock.llm.tokenizers.gguf import from_gguf

fuzz = settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
flips = st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), max_size=4)
LENGTHS = [
    b"\xff" * 8,
    struct.pack("<Q", 1 << 62),
    struct.pack("<Q", 1 << 40),
    struct.pack("<Q", 0),
]


def broken(whole, cut, changes, within=None):
    """The first ``cut`` of a file, with bytes changed in its first ``within``."""
    content = bytearray(whole[: int(len(whole) * cut)] if cut < 1 else whole)
    for place, mask in changes:
        at = int(place * (min(within or len(content), len(content)) - 1))
        if content:
            content[max(at, 0)] ^= mask
    return bytes(content)


def read_all(path):
    """Load and read everything; a ValueError is as good an answer."""
    try:
        checkpoint = loading.load(path)
        for name in checkpoint.parameters:
            value = checkpoint.parameters[name]
            with np.errstate(all="ignore"):
                assert value.shape is not None
        if checkpoint.text.tokenizer is not None:
            checkpoint.text.encode("any text", special=True)
    except ValueError as error:
        assert str(error)


@fuzz
@given(cut=st.one_of(st.just(1.0), st.floats(0, 1)), changes=flips)
@pytest.mark.parametrize("name", ["llama-f16.gguf", "qwen2-bf16.gguf", "gpt2-q8_0.gguf"])
def test_gguf(fixtures, tmp_path, name, cut, changes):
    path = tmp_path / "x.gguf"
    whole = (fixtures / name).read_bytes()
    path.write_bytes(broken(whole, cut, changes, within=len(whole) // 4))
    read_all(path)


@pytest.mark.parametrize("length", LENGTHS, ids=["2^64-1", "2^62", "2^40", "0"])
def test_gguf_with_declared_lengths_beyond_the_file(fixtures, tmp_path, length):
    whole = (fixtures / "gpt2-q8_0.gguf").read_bytes()
    path = tmp_path / "x.gguf"
    places = [8, 16, 24]  # tensors, metadata, the first key
    places += [
        whole.index(key) + len(key) + 8 for key in (b"tokenizer.ggml.tokens", b"ggml.merges")
    ]
    places += [
        whole.index(b"token_embd.weight") + len(b"token_embd.weight") + 4 + 8 * i for i in (0, 1)
    ]
    for at in places:
        path.write_bytes(whole[:at] + length + whole[at + 8 :])
        tracemalloc.start()
        with pytest.raises(ValueError, match=r"x\.gguf"):
            loading.load(path)
        assert tracemalloc.get_traced_memory()[1] < 20e6
        tracemalloc.stop()


def test_gguf_truncated_anywhere_is_named(fixtures, tmp_path):
    whole = (fixtures / "gpt2-q8_0.gguf").read_bytes()
    path = tmp_path / "x.gguf"
    for length in [0, 3, 4, 7, 12, 23, *range(24, len(whole), 997), len(whole) - 33]:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"x\.gguf"):
            read_gguf(path)


values = st.one_of(
    st.none(), st.integers(-3, 300), st.floats(), st.text(max_size=4), st.booleans(),
    st.lists(st.integers(-1, 7), max_size=3), st.lists(st.text(max_size=3), max_size=3),
)  # fmt: skip


@fuzz
@given(data=st.data())
@pytest.mark.parametrize("name", ["llama-f16.gguf", "qwen2-bf16.gguf"])
def test_tokenizers_of_odd_metadata(fixtures, name, data):
    metadata = dict(read_gguf(fixtures / name).metadata)
    keys = sorted(key for key in metadata if key.startswith("tokenizer.ggml."))
    for key in data.draw(st.lists(st.sampled_from(keys), min_size=1, max_size=2)):
        metadata[key] = data.draw(values)
    try:
        from_gguf(metadata).encode("any text")
    except ValueError as error:
        assert str(error)


@pytest.fixture(scope="module")
def copies(fixtures, tmp_path_factory):
    root = tmp_path_factory.mktemp("folders")
    return {name: shutil.copytree(fixtures / name, root / name) for name in ("llama", "bloom")}


FILES = [
    ("llama", "config.json"), ("llama", "model.safetensors"), ("llama", "tokenizer.json"),
    ("llama", "tokenizer_config.json"), ("llama", "special_tokens_map.json"),
    ("llama", "generation_config.json"), ("bloom", "model.safetensors.index.json"),
]  # fmt: skip


@fuzz
@given(cut=st.one_of(st.just(1.0), st.floats(0, 1)), changes=flips)
@pytest.mark.parametrize("name, file", FILES)
def test_hugging_face(copies, fixtures, name, file, cut, changes):
    whole = (fixtures / name / file).read_bytes()
    path = copies[name] / file
    try:
        path.write_bytes(broken(whole, cut, changes, within=2048))
        try:
            read_all(copies[name])
        except FileNotFoundError:
            assert file.endswith("index.json")  # it names another file
    finally:
        path.write_bytes(whole)


@fuzz
@given(data=st.data())
def test_odd_fields_of_config_json(copies, fixtures, data):
    import json

    path = copies["llama"] / "config.json"
    whole = json.loads((fixtures / "llama" / "config.json").read_text())
    odd = st.one_of(values, st.sampled_from([0, -1, 10**12, 1e300, [], {}, {"rope_type": "yarn"}]))
    for key in data.draw(st.lists(st.sampled_from(sorted(whole)), min_size=1, max_size=2)):
        whole[key] = data.draw(odd)
    try:
        path.write_text(json.dumps(whole))
        read_all(copies["llama"])
    finally:
        path.write_bytes((fixtures / "llama" / "config.json").read_bytes())


def test_gguf_with_more_tensors_than_bytes_says_how_many(fixtures, tmp_path):
    path = tmp_path / "x.gguf"
    path.write_bytes((fixtures / "gpt2-q8_0.gguf").read_bytes()[:40])
    with pytest.raises(
        ValueError, match=r"should have \d+ tensors, which need \d+ bytes or more, but 24 "
    ):
        read_gguf(path)


@pytest.mark.parametrize("length", LENGTHS[:3])
def test_safetensors_with_a_header_beyond_the_file(copies, fixtures, length):
    path = copies["llama"] / "model.safetensors"
    whole = (fixtures / "llama" / "model.safetensors").read_bytes()
    try:
        path.write_bytes(length + whole[8:])
        with pytest.raises(ValueError, match="is truncated or no safetensors file"):
            loading.load(copies["llama"])
    finally:
        path.write_bytes(whole)


@fuzz
@given(cut=st.floats(0, 1), changes=flips)
def test_llama2c(shared_data, tmp_path, cut, changes):
    path = tmp_path / "x.bin"
    whole = (shared_data("weights/stories260K") / "stories260K.bin").read_bytes()
    path.write_bytes(broken(whole, cut, changes, within=28))
    read_all(path)


@fuzz
@given(cut=st.floats(0, 1), changes=flips)
def test_sentencepiece(fixtures, tmp_path, cut, changes):
    path = tmp_path / "x.model"
    path.write_bytes(broken((fixtures / "llama" / "tokenizer.model").read_bytes(), cut, changes))
    try:
        SentencePieceTokenizer.from_file(path).encode("any text")
    except ValueError as error:
        assert "x.model" in str(error)


def test_tokenizer_of_another_decoder_is_refused(fixtures, tmp_path):
    import json

    whole = json.loads((fixtures / "gpt2" / "tokenizer.json").read_text())
    for decoder in ({"type": "WordPiece", "prefix": "##", "cleanup": True}, {"type": "CTC", "pad_token": "a", "word_delimiter_token": "b", "cleanup": True}):  # fmt: skip
        (tmp_path / "tokenizer.json").write_text(json.dumps({**whole, "decoder": decoder}))
        with pytest.raises(ValueError, match=f"got '{decoder['type']}'"):
            BPETokenizer.from_file(tmp_path / "tokenizer.json")
