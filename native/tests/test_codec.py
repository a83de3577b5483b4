"""Every gradient code against its oracle, bit for bit: sizes, threads, code paths, NaN, fairness."""

import math

import ml_dtypes
import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from native.tests.util_codec import CODES, FLOAT32, blocks, random_k  # pants: no-infer-dep
from oarlock import native
from oarlock.native import codec
from oarlock.native.paddle import as_numpy
from oarlock.native.reference import codec as reference

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
PATHS = native.info().paths
SIZES = [0, 1, 7, 8, 15, 16, 17, 63, 64, 65, 257, 1000, 5003, 8192]
LARGE = [32769, 140001]  # several parts, and more than a chunk of 65536

each_code = pytest.mark.parametrize("name", CODES)
each_path = pytest.mark.parametrize("path", PATHS)


def normals(count, seed=0):
    return np.random.default_rng(seed).standard_normal(count).astype(FLOAT32)


def kinds(count):
    """Tensors of all sorts: ordinary, with ties, mostly zero, zero, of all sizes of numbers."""
    rng, x = np.random.default_rng(count), normals(count, count)
    scales = np.exp2(rng.integers(-140, 120, count))
    return {
        "normal": x,
        "ties": np.round(2 * x),
        "sparse": x * (rng.random(count) < 0.02),
        "zero": np.zeros(count, FLOAT32),
        "wide": (x * scales).astype(FLOAT32),
        "tiny": x * FLOAT32(1e-38),
    }


def same(left, right) -> bool:
    """Bit for bit."""
    return all(
        a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in zip(left, right, strict=True)
    )


@each_code
@each_path
def test_equals_the_oracle_bit_for_bit(name, path):
    code = CODES[name]
    for count in SIZES + LARGE:
        for kind, acc in kinds(count).items() if count < 10000 else [("normal", normals(count))]:
            *wanted, rest = code.oracle(acc)
            with native.forced_path(path):
                arrays, kept = code.run(acc, threads=2)
                decoded = code.decoded(arrays, count)
            assert same(arrays, wanted), (count, kind)
            np.testing.assert_array_equal(kept, rest, err_msg=f"{count} {kind}")
            right = code.decode(*arrays, count)
            np.testing.assert_array_equal(decoded, right, err_msg=f"{count} {kind}")


@each_code
def test_same_bits_on_every_path_and_for_any_number_of_threads(name):
    code = CODES[name]
    for count in LARGE:
        acc = normals(count)
        base, rest = code.run(acc)
        decoded = code.decoded(base, count)
        for path in PATHS:
            for threads in (1, 2, 3, 5):
                with native.forced_path(path):
                    arrays, kept = code.run(acc, threads=threads)
                    other = code.decoded(arrays, count, threads=threads)
                assert same([*base, rest, decoded], [*arrays, kept, other]), (path, threads)


@each_code
def test_acc_is_only_read_without_keep(name):
    code, acc = CODES[name], normals(5003)
    kept, _ = code.run(acc)
    arrays, after = code.run(acc, keep=False)
    assert same(arrays, kept) and same([acc], [after])


@each_code
@each_path
def test_what_stays_is_what_the_decoder_does_not_add(name, path):
    code, acc = CODES[name], normals(5003)
    with native.forced_path(path):
        arrays, rest = code.run(acc)
        decoded = code.decoded(arrays, acc.size)
        assert same([acc - decoded], [rest])
        out = normals(acc.size, 1)
        wanted = out + FLOAT32(0.3) * decoded
        code.add(*arrays, out, weight=0.3, **code.options)
    np.testing.assert_array_equal(out, wanted)


@each_code
@each_path
@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, -np.nan])
def test_what_is_not_finite_is_decoded_and_stays(name, path, odd):
    code = CODES[name]
    for count in (1, 17, 500, 5003):
        acc = normals(count)
        acc[count // 2] = odd
        if not code.sees:
            continue
        with native.forced_path(path):
            arrays, rest = code.run(acc, threads=2)
            decoded = code.decoded(arrays, count)
        assert not np.isfinite(decoded[count // 2]) and np.isnan(rest[count // 2])
        if np.isnan(odd):
            assert np.isnan(decoded[count // 2])
        *wanted, stays = code.oracle(acc)
        np.testing.assert_array_equal(decoded, code.decode(*wanted, count))
        np.testing.assert_array_equal(rest, stays)


def test_a_nan_that_random_k_does_not_take_stays():
    code, acc = random_k(0.1), normals(1000)
    acc[::7] = np.nan
    arrays, rest = code.run(acc)
    decoded = code.decoded(arrays, 1000)
    places = reference.random_positions(1000, 100, 9)
    assert np.array_equal(np.isnan(decoded), np.isin(np.arange(1000), places) & np.isnan(acc))
    assert np.array_equal(np.isnan(rest), np.isnan(acc))


@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16])
@each_path
def test_accumulate(dtype, path):
    for count in SIZES + LARGE:
        acc, gradient = normals(count), normals(count, 1).astype(dtype)
        wanted = reference.accumulate(acc, gradient, 0.25, 0.9)
        for threads in (1, 3):
            found = acc.copy()
            with native.forced_path(path):
                codec.accumulate(found, gradient, 0.25, 0.9, threads=threads)
            assert same([found], [wanted])


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_random_rounding_is_fair(bits):
    """The mean over seeds is the value itself; neighbours and seeds are not alike."""
    size, seeds = 4096, 64
    acc = np.full(size, 0.3137, FLOAT32)
    acc[::256] = 1.0
    decoded = []
    for seed in range(seeds):
        code = blocks(bits, 256, seed)
        decoded.append(code.decoded(code.run(acc)[0], size)[acc != 1])
    found = np.array(decoded, np.float64)
    gap = {8: 1 / 127, 4: 1 / 7, 2: 2 / 3}[bits]
    assert abs(found.mean() - 0.3137) < 4 * gap / 2 / math.sqrt(found.size)
    assert len(np.unique(found)) == 2
    across = np.corrcoef(found)[np.triu_indices(seeds, 1)]
    assert np.abs(across).max() < 6 / math.sqrt(size)
    lag = np.corrcoef(found[:, 1:].ravel(), found[:, :-1].ravel())[0, 1]
    assert abs(lag) < 5 / math.sqrt(found.size)


def test_random_positions_are_distinct_and_fair():
    count, k, seeds = 61, 7, 4000  # arcs of 8 and of 9
    hits = np.zeros(count)
    for seed in range(seeds):
        places = reference.random_positions(count, k, seed)
        assert len(set(places)) == k
        hits[places] += 1
    wanted = seeds * k / count
    assert np.abs(hits - wanted).max() < 5 * math.sqrt(wanted)


def test_signs_have_the_best_scale():
    acc = normals(256)
    (bits, scales), rest = CODES["signs"].run(acc)
    for factor in (0.99, 1.01):
        other = acc - reference.signs_decode(bits, FLOAT32(factor) * scales, 256, block=256)
        assert np.square(rest).sum() < np.square(other).sum()


@each_code
def test_error_feedback_sends_everything_in_the_end(name):
    """The sum of what was sent is the sum of the gradients, but for what stays."""
    code, count = CODES[name], 2000
    acc, sent, total = np.zeros(count, FLOAT32), np.zeros(count), np.zeros(count)
    if name == "random, scaled":
        return  # with its scale what stays grows
    for step in range(20):
        gradient = normals(count, step)
        total += gradient
        codec.accumulate(acc, gradient)
        arrays, acc = code.run(acc)
        sent += code.decoded(arrays, count)
    np.testing.assert_allclose(sent + acc, total, atol=1e-4)


def test_paddle_tensors_and_any_shape():
    values = normals(24)
    acc = paddle.to_tensor(values).reshape([2, 3, 4])
    code = paddle.zeros([4, 6], "bfloat16")
    codec.bf16_encode(acc, code, keep=True)
    wanted, rest = reference.bf16_encode(values)
    assert np.array_equal(as_numpy(code).view(np.uint16).ravel(), wanted)
    assert np.array_equal(as_numpy(acc).ravel(), rest)
    indices, found = paddle.zeros([6], "uint8"), np.empty(3, FLOAT32)
    codec.blocks_encode(acc, paddle.zeros([24], "uint8"), found, block=8)
    codec.signs_encode(acc, indices[:3], found, block=8)


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 3000),
    chunk=st.integers(1, 3000),
    share=st.floats(0, 1),
    levels=st.integers(1, 1000),
    path=st.sampled_from(PATHS),
    threads=st.integers(1, 4),
)
def test_largest_of_chunks_whatever_the_ties(count, chunk, share, levels, path, threads):
    k = max(1, round(share * chunk))
    acc = (normals(count) * levels).round().astype(FLOAT32)
    arrays = [np.zeros(codec.chunk_topk_size(count, chunk=chunk, k=k), t) for t in ("u2", "f4")]
    with native.forced_path(path):
        codec.chunk_topk_encode(acc, *arrays, chunk=chunk, k=k, threads=threads)
    assert same(arrays, reference.chunk_topk_encode(acc, chunk=chunk, k=k)[:2])
