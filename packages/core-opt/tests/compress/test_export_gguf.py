"""GGUF files: codes bit for bit, what is written is read, and damage is seen."""

import resource

import gguf as package
import numpy as np
import pytest
from gguf.constants import GGMLQuantizationType as Type
from oarlock.core_opt.compress.export import codes, gguf, gguf_blocks, llama, reference
from oarlock.core_opt.compress.export.codes import Codes
from oarlock.core_opt.compress.export.files import WriteFailed
from oarlock.core_opt.compress.export.gguf_vocabulary import Vocabulary
from oarlock.core_opt.compress.export.llama import LlamaSizes

SIZES = LlamaSizes(
    vocab_size=300,
    hidden_size=64,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    intermediate_size=96,
    max_length=32,
    rope_theta=5000.0,
    norm_epsilon=1e-6,
)
PIECES = [b"<unk>", b"<s>", b"</s>", *(b"<0x%02X>" % byte for byte in range(256))]
PIECES += [b" a", "\u00e9".encode()] + [b"piece%d" % i for i in range(39)]
VOCABULARY = Vocabulary(pieces=PIECES, scores=[-float(i) for i in range(300)])


def grid(bits, zero, groups=3, columns=7, seed=0):
    """Codes [96, columns] whose scales float16 holds exactly."""
    rng = np.random.default_rng(seed)
    scale = rng.uniform(0.01, 1, (groups, columns)).astype(np.float16).astype(np.float32)
    return Codes(
        bits=bits,
        codes=rng.integers(0, 2**bits, (96, columns)).astype(np.uint8),
        scale=scale,
        zero=np.full((groups, columns), zero, np.float32),
    )


@pytest.mark.parametrize(
    ("bits", "zero", "kind"),
    [
        (2, 2, Type.Q4_0),
        (3, 4, Type.Q4_0),
        (4, 8, Type.Q4_0),
        (4, 0, Type.Q4_1),
        (4, 15, Type.Q4_1),
        (3, 0, Type.Q4_0),
        (8, 128, Type.Q8_0),
        (5, 3, Type.Q8_0),
    ],
)
@pytest.mark.parametrize("groups", [1, 3])
def test_codes_are_kept_exactly(bits, zero, kind, groups):
    """The package that packs llama.cpp's own files unpacks ours to the same numbers."""
    one = grid(bits, zero, groups)
    assert gguf_blocks.kind(one) == kind
    unpacked = package.quants.dequantize(gguf_blocks.packed(one), kind).T
    if kind == Type.Q4_1:  # its lowest value is rounded to float16
        lowest = -one.zero * one.scale
        gap = np.abs(lowest.astype(np.float16) - lowest)
        assert (np.abs(unpacked - one.values()) <= np.repeat(gap, 96 // groups, 0) + 1e-5).all()
    else:
        np.testing.assert_array_equal(unpacked, one.values())


@pytest.mark.parametrize(("bits", "kind"), [(4, Type.Q4_0), (8, Type.Q8_0)])
def test_bytes_are_those_of_the_package(bits, kind):
    """Weights that the package rounds, put on the grid that it chose, give its bytes."""
    weight = np.random.default_rng(3).standard_normal((7, 96)).astype(np.float32)
    theirs = package.quants.quantize(weight, kind)
    blocks = theirs.reshape(7, 3, -1)
    scale = np.ascontiguousarray(blocks[..., :2]).view(np.float16)[..., 0].astype(np.float32).T
    values = package.quants.dequantize(theirs, kind).T
    half = 2 ** (bits - 1)
    found = np.rint(values.reshape(3, 32, 7) / scale[:, None]) + half
    zero = np.full(scale.shape, half, np.float32)
    ours = Codes(bits=bits, codes=found.astype(np.uint8).reshape(96, 7), scale=scale, zero=zero)
    np.testing.assert_array_equal(gguf_blocks.packed(ours), theirs)


def test_codes_that_no_block_holds_are_refused():
    with pytest.raises(
        ValueError, match="query: GGUF needs groups of a multiple of 32 inputs, got 96"
    ):
        gguf_blocks.kind(grid(4, 8, groups=6), "query")
    with pytest.raises(ValueError, match="Q8_0 holds codes .* quantise symmetrically"):
        gguf_blocks.kind(grid(8, 10))
    with pytest.raises(ValueError, match="scale of .* is above 65504"):
        gguf_blocks.packed(
            Codes(
                bits=4,
                codes=np.zeros((32, 1), np.uint8),
                scale=np.full((1, 1), 1e6, np.float32),
                zero=np.full((1, 1), 8, np.float32),
            )
        )


@pytest.mark.parametrize("matrices", sorted(gguf.FORMATS))
@pytest.mark.parametrize("tied", [False, True])
def test_what_is_written_is_read(matrices, tied, tmp_path):
    weights = llama.random(SIZES, seed=0, tied=tied)
    gguf.write(weights, tmp_path / "m.gguf", matrices=matrices, vocabulary=VOCABULARY, name="mine")
    file = gguf.read(tmp_path / "m.gguf")
    assert file.signed and file.metadata["general.name"] == "mine"
    assert file.metadata["tokenizer.ggml.tokens"][259] == "\u2581a"
    assert file.metadata["tokenizer.ggml.token_type"][:4] == [2, 3, 3, 6]
    assert file.types["blk.0.attn_q.weight"] == matrices.upper()
    again = file.weights()
    assert again.tied == tied
    for name in ("rope_theta", "norm_epsilon"):
        assert getattr(again.sizes, name) == pytest.approx(getattr(SIZES, name))
    largest = {"f32": 0, "f16": 1e-3, "bf16": 4e-3, "q8_0": 5e-3, "q4_0": 0.13}[matrices]
    for name, part in weights.parts.items():
        error = np.abs(again.parts[name] - part).max()
        assert error <= largest * np.abs(part).max(), name


def test_codes_reach_the_file(tmp_path):
    weights = llama.random(SIZES, seed=1)
    weights = weights.rounded(lambda w: codes.rounded(w, bits=4, group=32), weights.matrices())
    gguf.write(weights, tmp_path / "m.gguf", matrices="f32")
    file = gguf.read(tmp_path / "m.gguf")
    assert file.metadata["general.file_type"] == package.LlamaFileType.MOSTLY_Q4_0
    assert file.types["blk.1.ffn_down.weight"] == "Q4_0" and file.types["output.weight"] == "F32"
    again, expected = file.weights(), weights.with_values()
    for name in weights.matrices():  # scales become float16
        np.testing.assert_allclose(again.parts[name], expected.parts[name], rtol=5e-4)


def test_the_function_survives(tmp_path):
    weights, tokens = llama.random(SIZES, seed=2, std=0.2), np.array([1, 299, 4, 4, 17])
    gguf.write(weights, tmp_path / "m.gguf", matrices="f32")
    found = reference.logits(gguf.read(tmp_path / "m.gguf").weights(), tokens)
    np.testing.assert_allclose(found, reference.logits(weights, tokens), rtol=1e-5, atol=1e-5)


def test_every_changed_byte_is_seen(tmp_path):
    path = tmp_path / "m.gguf"
    gguf.write(llama.random(SIZES, seed=0), path, matrices="q8_0", vocabulary=VOCABULARY)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    places = [
        4,
        8,
        30,
        120,
        len(content) // 2,
        len(content) - 1,
        *rng.integers(0, len(content), 40),
    ]
    for place in places:
        broken = bytearray(content)
        broken[place] ^= 0x10
        path.write_bytes(bytes(broken))
        with pytest.raises(ValueError, match="m.gguf"):
            gguf.read(path)
    for length in (0, 3, 20, 300, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="m.gguf"):
            gguf.read(path)


def test_another_kind_of_file_is_refused(tmp_path):
    path = tmp_path / "m.gguf"
    path.write_bytes(b"not at all" * 100)
    with pytest.raises(ValueError, match=r"1000 bytes\) is truncated or no GGUF file"):
        gguf.read(path)
    writer = package.GGUFWriter(path, "gpt2")
    writer.add_tensor("wte", np.ones((2, 2), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = gguf.read(path)
    assert not file.signed
    with pytest.raises(ValueError, match="is a 'gpt2'; only 'llama'"):
        file.weights()
    with pytest.raises(ValueError, match="has no tensor 'wtf'"):
        file.tensor("wtf")


def test_a_full_disk_leaves_nothing(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20000, hard))
    try:
        with pytest.raises(WriteFailed, match="is the disk full.*nothing was left there"):
            gguf.write(llama.random(SIZES, seed=0), tmp_path / "m.gguf", matrices="f32")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_wrong_arguments_leave_nothing(tmp_path):
    path, weights = tmp_path / "m.gguf", llama.random(SIZES, seed=0)
    narrow = llama.random(
        LlamaSizes(
            vocab_size=40,
            hidden_size=64,
            num_layers=1,
            num_heads=4,
            num_kv_heads=4,
            intermediate_size=172,
            max_length=8,
        ),
        seed=0,
    )
    with pytest.raises(ValueError, match=r"blocks.0.down: Q4_0 .* 32, got 172; .*padded\(32\)"):
        gguf.write(narrow, path, matrices="q4_0")
    gguf.write(narrow.padded(32), path, matrices="q4_0")
    path.unlink()
    with pytest.raises(ValueError, match="matrices must be one of 'f32'"):
        gguf.write(weights, path, matrices="q5_k")
    with pytest.raises(
        ValueError, match="vocabulary must have the 300 tokens of the model, got 299"
    ):
        short = Vocabulary(pieces=PIECES[:-1], scores=[0.0] * 299)
        gguf.write(weights, path, vocabulary=short)
    with pytest.raises(ValueError, match="scores must|must have a score each, got 300 and 2"):
        Vocabulary(pieces=PIECES, scores=[0.0, 1.0])
    with pytest.raises(ValueError, match="end must be an id below 300, got 300"):
        Vocabulary(pieces=PIECES, scores=[0.0] * 300, end=300)
    big = dict(weights.parts)
    big["blocks.0.up"] = big["blocks.0.up"] * 1e7
    with pytest.raises(ValueError, match="blocks.0.up holds .* beyond float16; write it as bf16"):
        gguf.write(llama.LlamaWeights(sizes=SIZES, parts=big), path, matrices="f16")
    assert not list(tmp_path.iterdir())
