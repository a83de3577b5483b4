"""Attention against its oracle: odd shapes, all kinds of masks, types, code paths and threads."""

import ctypes

import ml_dtypes
import numpy as np
import pytest

from oarlock import native
from oarlock.native import _library, attention, masks
from oarlock.native.reference import attention as reference

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FLOAT32 = np.dtype(np.float32)
PATHS = native.info().paths
each_path = pytest.mark.parametrize("path", PATHS)
each_type = pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16], ids=str)


def operands(batch, rows, keys, heads, kv_heads, dim, *, dtype=FLOAT32, seed=0):
    """q, k, v and the gradient of the result."""
    rng = np.random.default_rng(seed)
    shapes = [
        (batch, n, h, dim) for n, h in ((rows, heads), *((keys, kv_heads),) * 2, (rows, heads))
    ]
    return [rng.standard_normal(shape, np.float32).astype(dtype) for shape in shapes]


def run(q, k, v, g, **options):
    """out, lse, and the gradients of q, k and v; memory is full of NaN before."""
    out, q_grad = np.full_like(q, np.nan), np.full_like(q, np.nan)
    k_grad, v_grad = np.full_like(k, np.nan), np.full_like(v, np.nan)
    lse = np.full((q.shape[0], q.shape[2], q.shape[1]), np.nan, np.float32)
    attention.forward(q, k, v, out, lse, **options)
    attention.backward(q, k, v, out, lse, g, q_grad, k_grad, v_grad, **options)
    return out, lse, q_grad, k_grad, v_grad


def compare(found, q, k, v, g, *, tolerance=1e-5, **options):
    out, lse = reference.forward(q, k, v, **options)
    wanted = out, lse, *reference.backward(q, k, v, g, **options)
    for name, ours, right in zip(("out", "lse", "q_grad", "k_grad", "v_grad"), found, wanted):
        ours = ours.astype(np.float64)
        np.testing.assert_allclose(ours, right, rtol=tolerance, atol=tolerance, err_msg=name)


def random_bounds(rows, keys, count, *, causal, batch=1, heads=1, seed=0):
    """Any rows hidden, some keys from all of them."""
    rng = np.random.default_rng(seed)
    numbers = np.sort(rng.integers(0, rows + 1, (batch, heads, keys, count)), axis=-1)
    if count == 2 and not causal:
        numbers = numbers[..., ::-1]  # from a row on, and before an earlier one
    numbers[rng.random(numbers.shape[:3]) < 0.1] = [0, rows, 0, rows][:count]
    return masks.Mask(causal, np.ascontiguousarray(numbers, np.int32))


# batch, rows, keys, heads, kv_heads, dim
SHAPES = [
    (1, 1, 1, 1, 1, 1),
    (2, 5, 7, 3, 3, 16),
    (1, 12, 96, 4, 2, 24),
    (1, 95, 97, 2, 1, 33),
    (2, 130, 70, 6, 2, 64),
    (1, 97, 193, 1, 1, 128),
    (1, 40, 500, 2, 2, 80),
    (1, 500, 40, 2, 2, 48),
    (1, 33, 33, 1, 1, 256),
]


@each_path
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_row_sees_every_key(shape, path):
    given = operands(*shape)
    with native.forced_path(path):
        compare(run(*given), *given)


@each_path
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_causal(shape, path):
    given = operands(*shape)
    with native.forced_path(path):
        compare(run(*given, mask=masks.causal()), *given, mask=masks.causal())


MASKS = {
    "documents": masks.document([100, 7, 1, 193, 99]),
    "documents both ways": masks.document([100, 7, 1, 193, 99], causal=False),
    "documents in a window": masks.document([100, 200, 100], window=30),
    "window of one": masks.sliding_window(400, 1),
    "window": masks.sliding_window(400, 128),
    "window both ways": masks.sliding_window(400, 50, causal=False),
    "shared question": masks.shared_question(150, [50, 100, 90, 10]),
    "prefix": masks.prefix(400, 130),
    "several questions": masks.concatenate(
        [masks.shared_question(100, [50, 50]), masks.document([60]), masks.prefix(140, 90)]
    ),
    "one bound": random_bounds(400, 400, 1, causal=True),
    "two bounds, causal": random_bounds(400, 400, 2, causal=True),
    "two bounds": random_bounds(400, 400, 2, causal=False),
    "four bounds": random_bounds(400, 400, 4, causal=False),
    "one for each head": random_bounds(400, 400, 4, causal=False, batch=2, heads=2),
    "one for each batch": random_bounds(400, 400, 2, causal=True, batch=2),
    "nothing seen": masks.Mask(False, np.full((1, 1, 400, 2), 0, np.int32)),
    "no bounds": masks.full(),
}


@each_path
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_masks(mask, path):
    given = operands(2, 400, 400, 4, 2, 20)
    with native.forced_path(path):
        compare(run(*given, mask=mask), *given, mask=mask)


@pytest.mark.parametrize("rows, keys", [(70, 250), (250, 70), (1, 300)])
@pytest.mark.parametrize("count, causal", [(1, True), (2, True), (2, False), (4, False)])
def test_masks_of_other_rows_than_keys(rows, keys, count, causal):
    mask = random_bounds(rows, keys, count, causal=causal)
    given = operands(1, rows, keys, 2, 1, 32)
    compare(run(*given, mask=mask), *given, mask=mask)


@each_path
def test_more_tiles_than_pass_at_once(path):
    given = operands(1, 810, 1000, 1, 1, 16)
    with native.forced_path(path):
        compare(run(*given), *given)


@pytest.mark.parametrize("shape", [(1, 200, 300, 4, 2, 64), (2, 97, 97, 2, 2, 30)], ids=str)
def test_bfloat16(shape):
    given = operands(*shape, dtype=BFLOAT16)
    found = run(*given, mask=masks.causal())
    # The result is rounded before the backward pass reads it.
    compare(found, *given, mask=masks.causal(), tolerance=2e-2)
    for array in (found[0], *found[2:]):
        assert array.dtype == BFLOAT16
    wide = [x.astype(np.float32) for x in given]
    out, lse = reference.forward(*wide[:3], mask=masks.causal())
    np.testing.assert_allclose(found[0].astype(np.float32), out, rtol=2.0**-8, atol=1e-5)
    np.testing.assert_allclose(found[1], lse, rtol=1e-5, atol=1e-5)


@each_path
@pytest.mark.parametrize("kv_heads", [1, 4])
@each_type
def test_same_bits_for_any_number_of_threads(dtype, kv_heads, path):
    """One head of keys: threads wait for each other in the backward pass."""
    given = operands(1, 900, 900, 4, kv_heads, 16, dtype=dtype)
    for mask in (None, masks.causal(), masks.document([300, 20, 580], window=250)):
        with native.forced_path(path):
            results = [run(*given, mask=mask, threads=n) for n in (1, 2, 5)]
        for other in results[1:]:
            for first, second in zip(results[0], other):
                assert first.tobytes() == second.tobytes()


def test_many_heads_go_in_waves():
    """Packed copies of 50 heads are more than are kept at once; each head is as it is alone."""
    mask = masks.sliding_window(2048, 5)
    given = operands(1, 2048, 2048, 50, 50, 64)
    together = run(*given, mask=mask, threads=2)
    for head in (0, 40, 41, 49):
        alone = run(*(x[:, :, head : head + 1].copy() for x in given), mask=mask)
        for whole, part in zip((together[0], *together[2:]), (alone[0], *alone[2:])):
            assert whole[:, :, head : head + 1].tobytes() == part.tobytes()


@pytest.mark.parametrize("scale", [0.0, -0.7, 3.0])
def test_scale(scale):
    given = operands(1, 60, 60, 1, 1, 16)
    options = {"mask": masks.causal(), "scale": scale}
    compare(run(*given, **options), *given, **options, tolerance=3e-5)


@each_path
def test_large_scores_leave_the_largest(path):
    q, k, v, g = operands(1, 300, 300, 1, 1, 16)
    with native.forced_path(path):
        out, _, *grads = run(q, k, v, g, scale=1e4)
    scores = 1e4 * np.einsum("bihd,bjhd->bhij", q, k, dtype=np.float64)[0, 0]
    second, first = np.sort(scores, axis=-1)[:, -2:].T
    clear = first - second > 200
    assert clear.sum() > 250
    best = v[0, scores.argmax(-1), 0]
    np.testing.assert_allclose(out[0, clear, 0], best[clear], rtol=1e-6)
    assert np.isfinite(out).all() and all(np.isfinite(x).all() for x in grads)


def test_rows_that_see_nothing_and_keys_that_nobody_sees():
    bounds = np.array([0, 0, 100, 150], np.int32) + np.zeros((1, 1, 300, 1), np.int32)
    bounds[0, 0, 20:40] = [0, 300, 0, 0]
    given = operands(1, 300, 300, 2, 1, 24)
    out, lse, q_grad, k_grad, v_grad = run(*given, mask=masks.Mask(False, bounds))
    assert not out[:, 100:150].any() and not q_grad[:, 100:150].any()
    assert (
        np.isneginf(lse[:, :, 100:150]).all()
        and np.isfinite(np.delete(lse, range(100, 150), 2)).all()
    )
    assert not k_grad[:, 20:40].any() and not v_grad[:, 20:40].any()
    assert out[:, :100].all() and k_grad[:, :20].all()


@each_path
@pytest.mark.parametrize("operand", range(3))
def test_nan_reaches_who_sees_it(operand, path):
    given = operands(1, 500, 500, 1, 1, 16)
    given[operand][0, 100, 0, 3] = np.nan
    mask = masks.document([300, 200])
    with native.forced_path(path):
        out, _, *grads = run(*given, mask=mask)
    rows = np.isnan(out).any(axis=(0, 2, 3))
    seers = slice(100, 101) if operand == 0 else slice(100, 300)
    assert rows[seers].all() and not rows[300:].any()
    # v's own gradient depends on the probabilities only, which do not know v.
    assert np.isnan(grads[min(operand, 1)][0, 100]).any()
    assert not np.isnan(grads[0][0, 384:]).any(), "tiles that nobody sees are not looked at"


def test_nan_in_the_gradient_reaches_all():
    q, k, v, g = operands(1, 200, 200, 1, 1, 16)
    g[0, 150] = np.nan
    grads = run(q, k, v, g, mask=masks.causal())[2:]
    assert np.isnan(grads[0][0, 150]).all() and np.isfinite(grads[0][0, :96]).all()
    for grad in grads[1:]:
        assert np.isnan(grad[0, :151]).all() and np.isfinite(grad[0, 192:]).all()


def test_gradients_of_the_oracle_are_differences():
    shape = (1, 9, 11, 4, 2, 3)
    given = [x.astype(np.float64) for x in operands(*shape)]
    mask, g, step = random_bounds(9, 11, 4, causal=False), given[3], 1e-6
    for operand, grad in enumerate(reference.backward(*given, mask=mask, scale=0.6)):
        rng = np.random.default_rng(operand)
        direction = rng.standard_normal(grad.shape)
        ends = []
        for sign in (1, -1):
            moved = list(given[:3])
            moved[operand] = moved[operand] + sign * step * direction
            ends.append(np.sum(g * reference.forward(*moved, mask=mask, scale=0.6)[0]))
        slope = (ends[0] - ends[1]) / (2 * step)
        assert slope == pytest.approx(np.sum(grad * direction), rel=1e-6)


@each_path
def test_powers_of_two(path):
    x = np.concatenate(
        [np.linspace(-126, 127, 200_003), np.linspace(-1, 1, 200_003), np.arange(-126, 128)]
    ).astype(np.float32)
    y = np.empty_like(x)
    with native.forced_path(path):
        _exp2(x, y)
        right = np.exp2(x.astype(np.float64))
        assert (np.abs(y - right) / np.spacing(right.astype(np.float32))).max() < 2.3
        whole = np.arange(-126, 128, dtype=np.float32)
        assert np.array_equal(y[-whole.size :], np.exp2(whole.astype(np.float64)))
        ends = np.array([-np.inf, -1e30, -200, -127, np.nan], np.float32)
        found = np.empty_like(ends)
        _exp2(ends, found)
    assert not found[:4].any() and np.isnan(found[4])


def _exp2(x, y):
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (x, y)]
    _library.load().call("oarlock_attention_exp2", *pointers, ctypes.c_int64(x.size))


@pytest.mark.parametrize("empty", ["batch", "rows", "keys"])
def test_empty_operands(empty):
    sizes = {"batch": 2, "rows": 4, "keys": 5} | {empty: 0}
    q, k, v, g = operands(*sizes.values(), 2, 1, 16)
    out, lse, q_grad, k_grad, v_grad = run(q, k, v, g)
    if empty == "keys":
        assert not out.any() and np.isneginf(lse).all() and not q_grad.any()
    if empty == "rows":
        assert not k_grad.any() and not v_grad.any()


def _three_axes(given):
    given["q"] = given["q"][0]


def _other_type(given):
    given["k"] = given["k"].astype(BFLOAT16)


def _other_dim(given):
    given["k"] = given["k"][..., :8].copy()


def _other_values(given):
    given["v"] = given["v"][:, :10].copy()


def _heads(given):
    given["k"], given["v"] = (given[name][:, :, :2].copy() for name in "kv")


def _short_lse(given):
    given["lse"] = given["lse"][:, :, :5].copy()


def _strided(given):
    given["q"] = np.repeat(given["q"], 2, axis=3)[..., ::2]


def _shared(given):
    given["out"] = given["q"]


def _half(given):
    for name in ("q", "k", "v", "out"):
        given[name] = given[name].astype(np.float16)


REFUSED = {
    "four axes": _three_axes,
    "k is bfloat16, but q is float32": _other_type,
    r"k has shape \[1, 20, 3, 8\], but must have": _other_dim,
    r"v has shape \[1, 10, 3, 16\], but must have": _other_values,
    "q has 3 heads and k 2": _heads,
    "lse has shape": _short_lse,
    "q of shape .* is not contiguous": _strided,
    "out shares memory with q|q shares memory with out": _shared,
    "must be float32 or bfloat16": _half,
}


@pytest.mark.parametrize("message", REFUSED)
def test_refused_operands(message):
    q, k, v, _ = operands(1, 20, 20, 3, 3, 16)
    given = {"q": q, "k": k, "v": v, "out": np.full_like(q, 7)}
    given["lse"] = np.full((1, 3, 20), 7, np.float32)
    REFUSED[message](given)
    kept = given["out"].copy()
    with pytest.raises(ValueError, match=message) as error:
        attention.forward(*given.values())
    assert "[0]" not in str(error.value)
    assert given["out"].tobytes() == kept.tobytes() and (given["lse"] == 7).all()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"scale": np.inf}, "scale must be finite"),
        ({"scale": "1"}, "scale must be a number"),
        ({"mask": np.zeros((1, 1, 20, 1), np.int32)}, "mask must be a Mask"),
        ({"mask": masks.document([21])}, "mask is for 21 keys, but there are 20"),
        ({"mask": masks.Mask(True, np.full((1, 1, 20, 1), 21))}, "mask has a bound of 21"),
        ({"mask": masks.Mask(True, np.zeros((2, 1, 20, 1), int))}, "bounds has shape"),
        ({"mask": masks.Mask(True, np.zeros((1, 2, 20, 1), int))}, "bounds has shape"),
        ({"threads": 0}, "threads must be between"),
    ],
)
def test_refused_options(options, message):
    q, k, v, g = operands(1, 20, 20, 3, 3, 16)
    out, lse = np.full_like(q, 7), np.full((1, 3, 20), 7, np.float32)
    grads = [np.full_like(x, 7) for x in (q, k, v)]
    with pytest.raises(ValueError, match=message):
        attention.forward(q, k, v, out, lse, **options)
    with pytest.raises(ValueError, match=message):
        attention.backward(q, k, v, out, lse, g, *grads, **options)
    assert all((array == 7).all() for array in (out, lse, *grads))


def test_a_head_too_wide_is_refused():
    q, k, v, _ = operands(1, 3, 3, 1, 1, 257)
    with pytest.raises(ValueError, match="dim 257; it must be from 1 to 256"):
        attention.forward(q, k, v, np.empty_like(q), np.empty((1, 1, 3), np.float32))
