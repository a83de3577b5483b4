"""Compressed bfloat16 comes back bit for bit, in about as many bits as its entropy."""

import resource

import numpy as np
import paddle
import pytest
from oarlock.core_opt.compress import lossless, prefix_code
from oarlock.core_opt.compress.export.files import WriteFailed
from oarlock.core_opt.compress.prefix_code import Code


def normal(count, seed=0, std=0.02):
    """Bfloat16 numbers as uint16."""
    values = np.random.default_rng(seed).standard_normal(count, np.float32) * np.float32(std)
    return (values.view(np.uint32) >> 16).astype(np.uint16)


ALL = np.arange(
    1 << 16, dtype=np.uint16
)  # every number: NaN payloads, infinities, denormals, zeros


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 1023, 1024, 4097, 100_003])
@pytest.mark.parametrize("threads", [1, 3])
def test_numbers_come_back(count, threads):
    bits = normal(count)
    again = lossless.decompress(lossless.compress(bits, threads=threads), threads=threads)
    np.testing.assert_array_equal(again, bits)


@pytest.mark.parametrize(
    "bits",
    [
        ALL,
        np.tile(ALL, 3)[::-1].copy(),
        np.zeros(5000, np.uint16),
        np.full(5000, 0x7FC1, np.uint16),
        np.where(np.arange(50_000) % 977 == 0, ALL[:50_000], normal(50_000)),
        np.random.default_rng(1).integers(0, 1 << 16, 30_000).astype(np.uint16),
    ],
    ids=["all", "all-thrice", "zeros", "nans", "rare", "noise"],
)
def test_any_pattern_of_bits_comes_back(bits):
    np.testing.assert_array_equal(lossless.decompress(lossless.compress(bits)), bits)


def test_blocks_are_joined(monkeypatch):
    bits = normal(10_000)
    whole = lossless.compress(bits)
    monkeypatch.setattr(lossless, "BLOCK", 3000)
    parts = lossless.compress(bits, threads=2)
    assert len(whole.blocks) == 1 and len(parts.blocks) == 4
    np.testing.assert_array_equal(lossless.decompress(parts, threads=2), bits)


def test_size_is_near_the_entropy():
    """One per cent above the bound: whole bits for a code, and lanes that end in words."""
    bits = normal(1 << 21)
    found = 8 * lossless.compress(bits).num_bytes / bits.size
    bound = 8 + lossless.entropy(bits)
    assert bound <= found <= 1.015 * bound


def test_entropy_is_that_of_the_counts():
    exponents = np.array([1] * 4 + [2] * 2 + [3, 4], np.uint16)
    assert lossless.entropy(exponents << np.uint16(7)) == pytest.approx(1.75)


@pytest.mark.parametrize("seed", range(8))
def test_lengths_make_the_shortest_code(seed):
    """Against Huffman's lengths where those need no limit, by their total."""
    rng = np.random.default_rng(seed)
    counts = np.zeros(256, np.int64)
    used = rng.permutation(256)[: rng.integers(2, 20)]
    counts[used] = rng.integers(50, 500, len(used))
    code = prefix_code.best_code(counts)
    assert code.escape is None
    assert (counts * code.lengths).sum() == huffman_total(counts[used].tolist())


def huffman_total(counts):
    total = 0
    while len(counts) > 1:
        counts = sorted(counts)
        joined = counts[0] + counts[1]
        total, counts = total + joined, [joined, *counts[2:]]
    return total


def test_codes_are_prefix_free_and_read_back_by_the_table():
    counts = np.bincount(lossless.exponents(normal(100_000)), minlength=256)
    code = prefix_code.best_code(counts)
    words, table = code.words(), code.table()
    for symbol in np.flatnonzero(code.lengths):
        for then in np.flatnonzero(code.lengths):
            first = int(code.lengths[symbol])
            window = int(words[symbol]) | int(words[then]) << first
            entry = int(table[window & 0xFFFF])
            assert entry & 255 == symbol and (entry >> 8) & 255 == then
            assert entry >> 16 == first + int(code.lengths[then])


def test_parts_that_do_not_fit_are_refused():
    whole = lossless.compress(normal(5000))
    block = whole.blocks[0]
    with pytest.raises(ValueError, match="lanes"):
        prefix_code.decode(
            prefix_code.Coded(block.lanes, block.words[:-1], block.escaped), whole.code, 5000
        )
    with pytest.raises(ValueError, match="escapes, but"):
        rare = np.where(np.arange(5000) == 7, np.uint16(0x7FC1), normal(5000))
        found = lossless.compress(rare)
        assert found.code.escape is not None
        block = found.blocks[0]
        prefix_code.decode(
            prefix_code.Coded(block.lanes, block.words, block.escaped[1:]), found.code, 5000
        )
    with pytest.raises(ValueError, match="no complete prefix code"):
        Code(np.array([1, 2, *[0] * 254], np.uint8), None)
    with pytest.raises(ValueError, match="bits must be uint16 numbers, got float32"):
        lossless.compress(np.ones(3, np.float32))
    with pytest.raises(ValueError, match="threads must be an integer >= 1, got 0"):
        lossless.compress(normal(3), threads=0)


@pytest.fixture
def state():
    large = paddle.to_tensor(normal(9000).reshape(90, 100), dtype="bfloat16")
    return {
        "large": large,
        "every": paddle.to_tensor(ALL.reshape(256, 256), dtype="bfloat16"),
        "small": paddle.to_tensor(normal(3), dtype="bfloat16"),
        "empty": paddle.zeros([0, 3], "bfloat16"),
        "scalar": paddle.to_tensor(1.5, dtype="bfloat16"),
        "float": paddle.to_tensor([1.0, float("nan")]),
        "ids": paddle.to_tensor([[1], [2]], dtype="int64"),
    }


def test_tensors_come_back(state, tmp_path):
    sizes = lossless.save(state, tmp_path / "m.safetensors")
    again = lossless.load(tmp_path / "m.safetensors", threads=2)
    assert list(again) == list(state)
    for name, tensor in state.items():
        assert again[name].dtype == tensor.dtype and again[name].shape == tensor.shape
        assert again[name].numpy().tobytes() == tensor.numpy().tobytes(), name
    assert sizes["bytes_after"] == (tmp_path / "m.safetensors").stat().st_size


def test_a_model_is_smaller_and_the_same(tmp_path):
    paddle.seed(0)
    model = paddle.nn.Linear(300, 200).to(dtype="bfloat16")
    sizes = lossless.save(model.state_dict(), tmp_path / "m")
    assert sizes["bytes_after"] < 0.75 * sizes["bytes_before"]
    before = model.weight.numpy().copy()
    model.weight.set_value(paddle.zeros_like(model.weight))
    model.set_state_dict(lossless.load(tmp_path / "m"))
    np.testing.assert_array_equal(model.weight.numpy(), before)


def test_every_changed_byte_is_seen(state, tmp_path):
    path = tmp_path / "m"
    lossless.save(state, path)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in [0, 9, 200, len(content) - 1, *rng.integers(0, len(content), 60)]:
        broken = bytearray(content)
        broken[place] ^= 0x04
        path.write_bytes(bytes(broken))
        try:
            found = lossless.load(path)
        except ValueError:
            continue
        # the description may be changed without effect, as in a space between its words
        for name, tensor in state.items():
            assert found[name].numpy().tobytes() == tensor.numpy().tobytes(), (place, name)
    for length in (0, 5, 100, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="truncated or no safetensors file"):
            lossless.load(path)


def test_refusals_leave_nothing(state, tmp_path):
    with pytest.raises(ValueError, match=r"state\['x'\] must be a paddle.Tensor, got ndarray"):
        lossless.save({"x": np.ones(3)}, tmp_path / "m")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(WriteFailed, match="nothing was left there"):
            lossless.save(state, tmp_path / "m")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())
    (tmp_path / "m").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    with pytest.raises(ValueError, match="is no oarlock-lossless-1 file"):
        lossless.load(tmp_path / "m")
