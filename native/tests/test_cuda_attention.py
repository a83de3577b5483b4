"""The CUDA kernels of attention against the oracle: on an emulator, and where one is on a GPU."""

import contextlib

import numpy as np
import pytest
from native.tests.test_attention import MASKS, operands, random_bounds  # pants: no-infer-dep
from native.tests.util_cuda_lowp import BFLOAT16, Emulator  # pants: no-infer-dep
from native.tests.util_cuda_lowp import compile_for_cpu  # pants: no-infer-dep
from native.tests.util_gpu import Gpu, needs_gpu  # pants: no-infer-dep

from oarlock.native import _abi, _tensors, attention, masks
from oarlock.native.reference import attention as reference

FLOAT32 = np.dtype(np.float32)
NAMES = ("out", "lse", "q_grad", "k_grad", "v_grad")


class WithMasks(Emulator):
    """Bounds of masks, which nobody may write to, stay with the host."""

    @contextlib.contextmanager
    def active(self):
        def read(item, values):
            original(item, values)
            if not values.flags.writeable:
                item.device = _abi.CPU

        with super().active(), pytest.MonkeyPatch.context() as patch:
            original = _tensors._read_array
            patch.setattr(_tensors, "_read_array", read)
            yield


@pytest.fixture(scope="module")
def emulator(tmp_path_factory):
    return WithMasks(compile_for_cpu(tmp_path_factory.mktemp("cuda_on_cpu"), "attention"))


@pytest.fixture(params=["emulator", pytest.param("gpu", marks=needs_gpu)])
def place(request):
    if request.param == "gpu":
        return Gpu()
    found = request.getfixturevalue("emulator")
    found.set()
    return found


def run(place, q, k, v, g, *, shift=0, **options):
    """out, lse and the gradients, in memory full of NaN before; ``shift`` numbers from where memory begins."""

    def put(x):
        line = np.concatenate([np.zeros(shift, x.dtype), x.ravel()])
        return place.put(line)[shift:].reshape(x.shape)

    with place.active():
        out, q_grad, k_grad, v_grad = (put(np.full_like(x, np.nan)) for x in (q, q, k, v))
        lse = place.put(np.full((q.shape[0], q.shape[2], q.shape[1]), np.nan, np.float32))
        q, k, v, g = (put(x) for x in (q, k, v, g))
        attention.forward(q, k, v, out, lse, **options)
        attention.backward(q, k, v, out, lse, g, q_grad, k_grad, v_grad, **options)
        return [place.get(x) for x in (out, lse, q_grad, k_grad, v_grad)]


def compare(found, q, k, v, g, **options):
    """Weights and their changes are rounded to bfloat16 for products: half a unit is 2^-9 of a number."""
    out, lse = reference.forward(q, k, v, **options)
    wanted = out, lse, *reference.backward(q, k, v, g, **options)
    for name, ours, right in zip(NAMES, found, wanted):
        exact = name == "lse" or q.dtype == FLOAT32
        ours = ours.astype(np.float64)
        size = max(1.0, np.abs(right[np.isfinite(right)]).max(initial=0))
        limit = {"rtol": 2e-5, "atol": 2e-5} if exact else {"rtol": 3e-2, "atol": 1e-2 * size}
        np.testing.assert_allclose(ours, right, **limit, err_msg=name)
        if not exact and right.any():
            assert np.linalg.norm(ours - right) < 5e-3 * np.linalg.norm(right), name


# batch, rows, keys, heads, kv_heads, dim: those that tensor cores take, then others
SHAPES = [
    (1, 1, 1, 1, 1, 8),
    (2, 5, 7, 3, 3, 16),
    (1, 129, 97, 4, 2, 24),
    (1, 95, 130, 2, 1, 64),
    (2, 130, 70, 6, 2, 64),
    (1, 70, 193, 2, 1, 128),
    (1, 200, 64, 2, 2, 80),
    (1, 33, 65, 2, 1, 30),
    (1, 40, 35, 1, 1, 136),
]


@pytest.mark.parametrize("mask", [None, masks.causal()], ids=["full", "causal"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes(place, shape, mask):
    given = operands(*shape, dtype=BFLOAT16)
    compare(run(place, *given, mask=mask), *given, mask=mask)


@pytest.mark.parametrize("mask", [None, masks.causal()], ids=["full", "causal"])
@pytest.mark.parametrize("shape", [SHAPES[i] for i in (0, 2, 5, 7)], ids=str)
def test_float32(place, shape, mask):
    given = operands(*shape)
    compare(run(place, *given, mask=mask), *given, mask=mask)


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_masks(place, mask):
    batch, kv_heads = (1, 1) if mask.bounds is None else mask.bounds.shape[:2]
    given = operands(batch, 400, 400, 2, kv_heads, 64, dtype=BFLOAT16)
    compare(run(place, *given, mask=mask), *given, mask=mask)


@pytest.mark.parametrize("name", ["documents in a window", "four bounds", "one for each batch"])
def test_masks_and_wide_heads(place, name):
    given = operands(2, 400, 400, 2, 1, 96, dtype=BFLOAT16)
    compare(run(place, *given, mask=MASKS[name]), *given, mask=MASKS[name])


@pytest.mark.parametrize("rows, keys", [(70, 250), (250, 70), (1, 300)])
@pytest.mark.parametrize("count, causal", [(1, True), (2, True), (2, False), (4, False)])
def test_masks_of_other_rows_than_keys(place, rows, keys, count, causal):
    mask = random_bounds(rows, keys, count, causal=causal)
    for dtype in (BFLOAT16, FLOAT32):
        given = operands(1, rows, keys, 2, 1, 32, dtype=dtype)
        compare(run(place, *given, mask=mask), *given, mask=mask)


def test_more_tiles_than_a_warp_looks_at_at_once(place):
    """Of a long sequence all rows see a few keys, and the last of two heads many."""
    length = 2200
    bounds = np.full((1, 2, length, 1), 0, np.int32)
    bounds[0, :, [3, 1500, 2150], 0] = length
    bounds[0, 1, :, 0] = np.minimum(np.arange(length) + 40, length)
    mask = masks.Mask(True, bounds)
    given = operands(1, length, length, 2, 2, 64, dtype=BFLOAT16)
    compare(run(place, *given, mask=mask), *given, mask=mask)


@pytest.mark.parametrize("scale", [0.0, -0.7, 0.6])
def test_scale(place, scale):
    q, k, v, g = operands(1, 60, 60, 2, 1, 16, dtype=BFLOAT16)
    for mask in (masks.causal(), masks.sliding_window(60, 7, causal=False)):
        found = run(place, q, k, v, g, mask=mask, scale=scale)
        compare(found, q, k, v, g, mask=mask, scale=scale)


@pytest.mark.parametrize("dim", [16, 30])
def test_large_scores_leave_the_largest(place, dim):
    q, k, v, g = operands(1, 130, 130, 1, 1, dim, dtype=BFLOAT16)
    out, _, *grads = run(place, q, k, v, g, scale=1e4)
    wide = [x.astype(np.float64) for x in (q, k)]
    scores = 1e4 * np.einsum("bihd,bjhd->bhij", *wide)[0, 0]
    second, first = np.sort(scores, axis=-1)[:, -2:].T
    clear = first - second > 200
    assert clear.sum() > 100
    best = v[0, scores.argmax(-1)[clear], 0].astype(np.float64)
    np.testing.assert_allclose(out[0, clear, 0].astype(np.float64), best, rtol=2.0**-6)
    assert all(np.isfinite(x.astype(np.float32)).all() for x in (out, *grads))


def test_rows_that_see_nothing_and_keys_that_nobody_sees(place):
    bounds = np.array([0, 0, 100, 150], np.int32) + np.zeros((1, 1, 200, 1), np.int32)
    bounds[0, 0, 20:40] = [0, 200, 0, 0]
    given = operands(1, 200, 200, 2, 1, 64, dtype=BFLOAT16)
    mask = masks.Mask(False, bounds)
    found = run(place, *given, mask=mask)
    out, lse, q_grad, k_grad, v_grad = (x.astype(np.float32) for x in found)
    compare([out, lse, q_grad, k_grad, v_grad], *given, mask=mask)
    assert not out[:, 100:150].any() and not q_grad[:, 100:150].any()
    assert np.isneginf(lse[:, :, 100:150]).all()
    assert not k_grad[:, 20:40].any() and not v_grad[:, 20:40].any()


@pytest.mark.parametrize("dim", [64, 128])
@pytest.mark.parametrize("operand", range(4))
def test_nan_reaches_who_sees_it_and_no_tile_beyond(place, operand, dim):
    given = operands(1, 500, 500, 1, 1, dim, dtype=BFLOAT16)
    given[operand][0, 100, 0, 3] = np.nan
    found = run(place, *given, mask=masks.document([300, 200]))
    out, _, *grads = (x.astype(np.float32) for x in found)
    if operand < 3:
        assert np.isnan(out).any(axis=(0, 2, 3))[100 if operand == 0 else slice(100, 300)].all()
    # v's own gradient depends on the probabilities only, which do not know v.
    assert np.isnan(grads[(0, 1, 0, 1)[operand]][0, 100]).any()
    for one in (out, *grads):  # tiles that nobody sees are not looked at
        assert np.isfinite(one[0, 384:]).all()


@pytest.mark.parametrize("empty", ["batch", "rows", "keys", "heads"])
@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16], ids=str)
def test_empty_operands(place, empty, dtype):
    sizes = {"batch": 2, "rows": 4, "keys": 5, "heads": 2} | {empty: 0}
    given = operands(*sizes.values(), 1, 16, dtype=dtype)
    out, lse, q_grad, k_grad, v_grad = run(place, *given, mask=masks.causal())
    if empty == "keys":
        assert not out.any() and np.isneginf(lse).all() and not q_grad.any()
    if empty in ("rows", "heads"):
        assert not k_grad.any() and not v_grad.any()


def test_memory_that_is_not_aligned(place):
    """Copies of 16 bytes need it; other kernels take what has it not."""
    given = operands(1, 70, 90, 2, 1, 64, dtype=BFLOAT16)
    compare(run(place, *given, shift=1), *given)


@pytest.mark.parametrize("dim", [64, 128])
def test_bits_do_not_depend_on_calls_and_other_heads(place, dim):
    mask = masks.document([80, 1, 89], window=60)
    given = operands(2, 170, 170, 4, 2, dim, dtype=BFLOAT16)
    found, again = (run(place, *given, mask=mask) for _ in range(2))
    assert [x.tobytes() for x in found] == [x.tobytes() for x in again]
    q, k, v, g = given
    alone = run(place, *(x[1:, :, i].copy() for x, i in zip((q, k, v, g), (
        slice(2, 4), slice(1, 2), slice(1, 2), slice(2, 4)))), mask=mask)  # fmt: skip
    for whole, part in zip(found, alone):
        heads = part.shape[1] if whole is found[1] else part.shape[2]
        last = whole[1:, -heads:] if whole is found[1] else whole[1:, :, -heads:]
        assert last.tobytes() == part.tobytes()


def test_the_order_of_threads_changes_nothing(emulator):
    """Where a barrier is missing, one of the two orders reads too early."""
    mask = masks.document([100, 60], window=50)
    for dim, dtype in ((64, BFLOAT16), (128, BFLOAT16), (30, FLOAT32)):
        given = operands(1, 160, 160, 2, 1, dim, dtype=dtype)
        found = set()
        for backwards in (False, True):
            emulator.set(backwards=backwards)
            found.add(b"".join(x.tobytes() for x in run(emulator, *given, mask=mask)))
        assert len(found) == 1
    emulator.set()


@needs_gpu
@pytest.mark.parametrize("dim", [64, 128])
@pytest.mark.parametrize("name", ["causal", "documents"])
def test_many_blocks_at_once_on_a_gpu(name, dim):
    length = 1500
    mask = masks.causal() if name == "causal" else masks.document([700, 3, 797], window=400)
    given = operands(1, length, length, 2, 1, dim, dtype=BFLOAT16)
    compare(run(Gpu(), *given, mask=mask), *given, mask=mask)
    given = operands(3, length, length, 12, 6, dim, dtype=BFLOAT16)
    first = [x.tobytes() for x in run(Gpu(), *given, mask=mask)]
    for _ in range(3):
        assert [x.tobytes() for x in run(Gpu(), *given, mask=mask)] == first
