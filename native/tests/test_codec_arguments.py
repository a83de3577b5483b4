"""What the gradient codes refuse: each message names the argument and what would be right."""

from typing import Any

import numpy as np
import pytest

from oarlock.native import codec

F = np.float32


def zeros(count, dtype=F):
    return np.zeros(count, dtype)


def ones(count):
    return np.ones(count, F)


# A good call of every function, for 100 elements.
GOOD: dict[str, dict[str, Any]] = {
    "accumulate": {"acc": ones(100), "gradient": ones(100)},
    "bf16_encode": {"acc": ones(100), "code": zeros(100, np.uint16), "keep": True},
    "bf16_add": {"code": zeros(100, np.uint16), "out": ones(100)},
    "blocks_encode": {
        "acc": ones(100),
        "codes": zeros(50, np.uint8),
        "scales": zeros(7),
        "bits": 4,
        "block": 16,
        "keep": True,
    },
    "blocks_add": {
        "codes": zeros(50, np.uint8),
        "scales": zeros(7),
        "out": ones(100),
        "bits": 4,
        "block": 16,
    },
    "signs_encode": {
        "acc": ones(100),
        "bits": zeros(13, np.uint8),
        "scales": zeros(7),
        "block": 16,
        "keep": True,
    },
    "signs_add": {"bits": zeros(13, np.uint8), "scales": zeros(7), "out": ones(100), "block": 16},
    "chunk_topk_encode": {
        "acc": ones(100),
        "indices": zeros(21, np.uint16),
        "values": zeros(21),
        "chunk": 16,
        "k": 3,
        "keep": True,
    },
    "chunk_topk_add": {
        "indices": np.tile(np.arange(3, dtype=np.uint16), 7),
        "values": zeros(21),
        "out": ones(100),
        "chunk": 16,
        "k": 3,
    },
    "kth_magnitude": {"acc": ones(100), "k": 5},
    "select": {
        "acc": ones(100),
        "threshold": 2.0,
        "indices": zeros(9, np.uint32),
        "values": zeros(9),
        "keep": True,
    },
    "select_add": {"indices": np.arange(9, dtype=np.uint32), "values": zeros(9), "out": ones(100)},
    "random_k": {"acc": ones(100), "values": zeros(9), "seed": 1, "keep": True},
    "random_k_add": {"values": zeros(9), "out": ones(100), "seed": 1},
    "pack_bits": {"values": zeros(100, np.uint16), "out": zeros(150, np.uint8), "width": 12},
    "unpack_bits": {"packed": zeros(150, np.uint8), "values": zeros(100, np.uint16), "width": 12},
    "orthogonalise": {"matrix": np.eye(10, 4, dtype=F)},
    "dct": {"x": ones(100), "out": zeros(100), "chunk": 16},
}

READ = {  # tensors that are only read, also with keep
    "accumulate": {"gradient"},
    "bf16_add": {"code"},
    "blocks_add": {"codes", "scales"},
    "signs_add": {"bits", "scales"},
    "chunk_topk_add": {"indices", "values"},
    "kth_magnitude": {"acc"},
    "select_add": {"indices", "values"},
    "random_k_add": {"values"},
    "pack_bits": {"values"},
    "unpack_bits": {"packed"},
    "dct": {"x"},
}
TENSORS = [
    (name, argument)
    for name, given in GOOD.items()
    for argument, value in given.items()
    if isinstance(value, np.ndarray)
]


def copies(name):
    return {
        argument: value.copy() if isinstance(value, np.ndarray) else value
        for argument, value in GOOD[name].items()
    }


def refused(name, message, **changed):
    """The call is refused, and nothing was changed."""
    given = copies(name) | changed
    before = {key: value.copy() for key, value in given.items() if isinstance(value, np.ndarray)}
    with pytest.raises(ValueError, match=message):
        getattr(codec, name)(**given)
    for key, value in before.items():
        assert np.array_equal(given[key], value, equal_nan=True), key


@pytest.mark.parametrize("name", GOOD)
def test_good_calls_pass(name):
    getattr(codec, name)(**copies(name))


@pytest.mark.parametrize("name, argument", TENSORS)
def test_every_tensor_is_checked(name, argument):
    right = GOOD[name][argument]
    refused(name, rf"{argument} is float64, but must be", **{argument: right.astype(np.float64)})
    refused(name, rf"{argument} must be a Paddle tensor, .*, not str", **{argument: "x"})
    strided = np.zeros([2 * n for n in right.shape], right.dtype)
    strided = strided[tuple(slice(None, None, 2) for _ in right.shape)]
    refused(name, rf"{argument} of shape .* is not contiguous", **{argument: strided})


@pytest.mark.parametrize("name, argument", TENSORS)
def test_what_is_written_must_be_writable(name, argument):
    given = copies(name)
    given[argument].flags.writeable = False
    if argument in READ.get(name, ()):
        getattr(codec, name)(**given)
        return
    refused(name, rf"{argument} is read-only, but is updated", **{argument: given[argument]})


@pytest.mark.parametrize(
    "name", [n for n in GOOD if sum(name == n for name, _ in TENSORS) > 1 and n != "dct"]
)
def test_memory_is_not_shared(name):
    first, second, *_ = (argument for owner, argument in TENSORS if owner == name)
    a, b = GOOD[name][first], GOOD[name][second]
    base = np.zeros(a.nbytes + b.nbytes, np.uint8)
    changed = {
        first: base[: a.nbytes].view(a.dtype),
        second: base[a.nbytes // 8 * 4 :][: b.nbytes].view(b.dtype),
    }
    if {first, second} <= READ.get(name, set()):
        return
    refused(name, "shares memory with", **changed)


def test_dct_takes_all_of_its_memory_or_none():
    base = ones(130)
    refused("dct", "shares memory with", x=base[:100], out=base[10:110])


NUMBERS = [
    ("weight", ["bf16_add", "blocks_add", "signs_add", "select_add", "random_k_add"]),
    ("scale", ["accumulate", "random_k"]),
    ("decay", ["accumulate"]),
]


@pytest.mark.parametrize("argument, names", NUMBERS)
def test_numbers_are_finite(argument, names):
    for name in names:
        refused(name, f"{argument} must be finite as float32, not nan", **{argument: np.nan})
        refused(name, f"{argument} must be finite as float32, not 1e\\+300", **{argument: 1e300})
        refused(name, f"{argument} must be a number, not '1'", **{argument: "1"})


def test_flags_seeds_and_threads():
    for name, given in GOOD.items():
        refused(name, "threads must be between 1 and 1024, not 0", threads=0)
        if "keep" in given:
            refused(name, "keep must be True or False, not 1", keep=1)
        if name in ("blocks_encode", "random_k", "random_k_add"):
            refused(name, r"seed must be an integer in \[0, 2\^64\), not -1", seed=-1)
            refused(name, "seed must be an integer in", seed=1.5)
    refused("dct", "inverse must be True or False, not None", inverse=None)


WRONG: list[tuple[str, dict[str, Any], str]] = [
    (
        "accumulate",
        {"gradient": ones(99)},
        "gradient has 99 elements, but the 100 elements of acc need 100",
    ),
    ("accumulate", {"gradient": zeros(100, np.float16)}, "must be float32 or bfloat16; cast it"),
    ("bf16_encode", {"code": zeros(101, np.uint16)}, "code has 101 elements, but the 100"),
    ("bf16_add", {"code": zeros(100, np.int16)}, "code is int16, but must be uint16 or bfloat16"),
    (
        "blocks_encode",
        {"codes": zeros(51, np.uint8)},
        "codes has 51 elements, but the 100 elements of acc in 4 bits need 50",
    ),
    (
        "blocks_add",
        {"scales": zeros(8)},
        "scales has 8 elements, but the 100 elements of out in blocks of 16 need 7",
    ),
    ("blocks_encode", {"bits": 3}, "bits must be 8, 4 or 2, not 3"),
    ("blocks_add", {"bits": True}, "bits must be 8, 4 or 2, not True"),
    ("blocks_encode", {"block": 12}, "block must be a multiple of 8 from 8 to 65536, not 12"),
    ("signs_add", {"block": 0}, "block must be a multiple of 8 from 8 to 65536, not 0"),
    ("signs_encode", {"block": 65544}, "block must be a multiple of 8 from 8 to 65536, not 65544"),
    ("signs_encode", {"block": 16.0}, "block must be an integer, not 16.0"),
    (
        "signs_encode",
        {"bits": zeros(12, np.uint8)},
        "bits has 12 elements, but the 100 elements of acc in 1 bit need 13",
    ),
    ("chunk_topk_encode", {"k": 17}, "k must be from 1 to chunk, 16, not 17"),
    ("chunk_topk_encode", {"k": 0}, "k must be from 1 to chunk, 16, not 0"),
    ("chunk_topk_encode", {"chunk": 65537}, "chunk must be from 1 to 65536, not 65537"),
    ("chunk_topk_add", {"chunk": -1}, "chunk must be an integer >= 0, not -1"),
    (
        "chunk_topk_encode",
        {"indices": zeros(20, np.uint16)},
        "indices has 20 elements, but the 100 elements of acc in chunks of 16 with 3 entries need 21",
    ),
    (
        "chunk_topk_add",
        {"indices": zeros(21, np.uint16)},
        "indices has 0 as entry .*, but positions must rise within each chunk",
    ),
    (
        "chunk_topk_add",
        {"indices": np.tile(np.array([0, 1, 4], np.uint16), 7)},
        "indices has 4 as entry 20, but .* be below its size, 4; pass what chunk_topk_encode wrote",
    ),
    ("kth_magnitude", {"k": 0}, "k must be from 1 to the 100 elements of acc, not 0"),
    ("kth_magnitude", {"k": 101}, "k must be from 1 to the 100 elements of acc, not 101"),
    ("kth_magnitude", {"k": 2**70}, "k must be an integer >= 0, not 1180591620717411303424"),
    ("select", {"threshold": -1.0}, "threshold must be a number >= 0, not -1.0"),
    ("select", {"threshold": 1e39}, "threshold must be within the range of float32, not 1e"),
    ("select", {"most": -1}, "most must be an integer >= 0, not -1"),
    ("select", {"values": zeros(8)}, "values has 8 elements, but the 9 elements of indices need 9"),
    ("select", {"threshold": 0.5}, "indices has 9 elements, but 100 magnitudes reach"),
    (
        "select_add",
        {"indices": np.array([0, 5, 5, 6, 7, 8, 9, 10, 11], np.uint32)},
        "indices has 5 as entry 2, but positions must rise and be below the 100 elements of out",
    ),
    (
        "select_add",
        {"indices": np.arange(92, 101, dtype=np.uint32)},
        "indices has 100 as entry 8, but positions must rise and be below",
    ),
    (
        "random_k",
        {"values": zeros(101)},
        "values has 101 elements, but only the 100 elements of acc can be sent",
    ),
    ("random_k_add", {"values": zeros(101)}, "values has 101 elements, but only the 100"),
    ("pack_bits", {"width": 17}, "width must be from 1 to 16 bits, not 17"),
    (
        "pack_bits",
        {"values": np.arange(4000, 4100, dtype=np.uint16)},
        "values has 4096 as element 96, but width 12 is for numbers below 4096; pass a larger",
    ),
    (
        "unpack_bits",
        {"packed": zeros(149, np.uint8)},
        "packed has 149 elements, but the 100 elements of values in 12 bits need 150",
    ),
    ("orthogonalise", {"matrix": ones(10)}, r"matrix has shape \[10\], but must have 2 axes"),
    (
        "orthogonalise",
        {"matrix": np.ones((70, 65), F)},
        r"matrix has shape \[70, 65\], but may have at most 64 columns",
    ),
    (
        "orthogonalise",
        {"matrix": np.ones((3, 4), F)},
        "in 3 dimensions there are not 4 orthogonal columns; pass at most as many as rows",
    ),
    ("orthogonalise", {"eps": 0.0}, "eps must be from 1e-7 to 0.1, not 0.0"),
    ("orthogonalise", {"eps": np.nan}, "eps must be from 1e-7 to 0.1, not nan"),
    ("dct", {"chunk": 7}, "chunk must be from 8 to 256, not 7"),
    ("dct", {"chunk": 257}, "chunk must be from 8 to 256, not 257"),
    ("dct", {"out": zeros(99)}, "out has 99 elements, but the 100 elements of x need 100"),
]


@pytest.mark.parametrize("name, changed, message", WRONG)
def test_refused_with_the_argument_and_the_remedy(name, changed, message):
    refused(name, message, **changed)


def test_sizes():
    assert codec.blocks_sizes(101, bits=4, block=16) == (51, 7)
    assert codec.signs_sizes(101, block=16) == (13, 7)
    assert codec.chunk_topk_size(101, chunk=16, k=7) == 6 * 7 + 5
    assert codec.packed_size(101, 12) == 152
    for call in (
        lambda: codec.blocks_sizes(-1),
        lambda: codec.signs_sizes(1, block=9),
        lambda: codec.chunk_topk_size(1, chunk=0, k=1),
        lambda: codec.packed_size(1, 0),
    ):
        with pytest.raises(ValueError):
            call()
