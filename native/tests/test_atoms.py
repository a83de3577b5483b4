"""Sums over edges and radial filters against their oracles: odd shapes, types, code paths, threads."""

import numpy as np
import pytest

from oarlock import native
from oarlock.native import atoms
from oarlock.native.reference.atoms import edges as edges_reference
from oarlock.native.reference.atoms import radial as radial_reference

PATHS = native.info().paths
TEAMS = [(path, threads) for path in PATHS for threads in (1, 2, 5)]
TOLERANCE = {"float32": 3e-6, "float64": 1e-13}
each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def normals(*shape, seed=0, dtype="float64"):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def agree(kernel, shape, wanted, dtype):
    """Run ``kernel(out, threads)`` on every path: threads never change bits."""
    scale = max(float(np.abs(wanted).max(initial=0.0)), 1.0)
    results = {}
    for path, threads in TEAMS:
        out = np.full(shape, np.nan, dtype)
        with native.forced_path(path):
            kernel(out, threads)
        first = results.setdefault(path, out)
        assert first.tobytes() == out.tobytes(), (path, threads)
        np.testing.assert_allclose(
            out, wanted, rtol=0, atol=TOLERANCE[dtype] * scale, err_msg=f"{path}"
        )


def pairs(atoms_, count, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, atoms_, count), rng.integers(0, atoms_, count)


# Atoms, pairs, of which from either end, channels, width.
EDGES = [(1, 1, 0, 1, 1), (5, 17, 9, 1, 3), (7, 40, 40, 3, 16), (30, 300, 123, 2, 37)]
EDGES += [(40, 700, 300, 1, 130), (3, 0, 0, 1, 8), (4, 9, 2, 0, 8)]


@each_dtype
@pytest.mark.parametrize("count, edges, both, channels, width", EDGES)
def test_convolve_and_multiply(count, edges, both, channels, width, dtype):
    first, second = pairs(count, edges)
    x = normals(count, channels, width, dtype=dtype)
    y = normals(count, channels, width, seed=1, dtype=dtype)
    w = normals(edges, width, seed=2, dtype=dtype)
    agree(
        lambda out, threads: atoms.convolve(x, w, first, second, out, both=both, threads=threads),
        x.shape,
        edges_reference.convolve(x, w, first, second, atoms=count, both=both),
        dtype,
    )
    agree(
        lambda out, threads: atoms.multiply(y, x, first, second, out, both=both, threads=threads),
        w.shape,
        edges_reference.multiply(y, x, first, second, both=both),
        dtype,
    )


@each_dtype
@pytest.mark.parametrize("width", [1, 3, 9, 16, 70, 200])
def test_gather_and_scatter_and_rows(width, dtype):
    index = np.random.default_rng(0).integers(0, 11, 531)
    x, values = normals(11, width, dtype=dtype), normals(531, width, dtype=dtype)
    other, factors = normals(531, width, seed=1, dtype=dtype), normals(531, dtype=dtype)
    team = {"dtype": dtype}
    agree(
        lambda out, threads: atoms.gather(x, index, out, threads=threads),
        values.shape,
        x[index],
        **team,
    )
    agree(
        lambda out, threads: atoms.scatter_sum(values, index, out, threads=threads),
        x.shape,
        edges_reference.scatter_sum(values, index, rows=11),
        **team,
    )
    agree(
        lambda out, threads: atoms.row_dots(values, other, out, threads=threads),
        (531,),
        (values.astype(np.float64) * other).sum(1),
        **team,
    )
    agree(
        lambda out, threads: atoms.scale_rows(values, factors, out, threads=threads),
        values.shape,
        values.astype(np.float64) * factors[:, None],
        **team,
    )
    agree(
        lambda out, threads: atoms.column_sums(values, out),
        (width,),
        values.astype(np.float64).sum(0),
        **team,
    )


@each_dtype
@pytest.mark.parametrize("name", ["shifted_softplus", "silu"])
@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_activation(name, order, dtype):
    x = np.concatenate([np.linspace(-60, 60, 533), [0.0, -1e-3, 300, -300]]).reshape(3, 179)
    x = x.astype(dtype)
    bias, g, h = (normals(*s, dtype=dtype) for s in ((179,), (3, 179), (3, 179)))
    for given in ({}, {"bias": bias}, {"g": g}, {"bias": bias, "g": g, "h": h}):
        wanted = edges_reference.activation(x, name=name, order=order, **given)

        def kernel(out, threads, given=given):
            atoms.activation(x, out, name=name, order=order, threads=threads, **given)

        agree(kernel, x.shape, wanted, dtype)


def test_activation_shows_nan():
    out = np.zeros((1, 5), np.float32)
    x = np.array([[0, np.nan, 1, 2, 3]], np.float32)
    for path in PATHS:
        with native.forced_path(path):
            for order in range(4):
                atoms.activation(x, out, name="silu", order=order)
                assert np.isnan(out).tolist() == [[False, True, False, False, False]]


def radial(basis, envelope="cosine", activation="silu"):
    return atoms.Radial(
        cutoff=5.0, basis=basis, width=0.4, envelope=envelope, power=5, activation=activation
    )


def network(kind, features, hidden, count, dtype):
    parameters = (
        np.linspace(0, 5, count) if kind == "gaussian" else np.arange(1, count + 1) * np.pi / 5
    )
    weights = [parameters, None, None, normals(hidden or count, features) / 3, normals(features)]
    if hidden:
        weights[1:3] = normals(count, hidden, seed=1) / 2, normals(hidden, seed=2)
    return [None if one is None else one.astype(dtype) for one in weights]


# Edges, features, hidden width, size of the basis.
RADIAL = [(1, 1, 1, 1), (97, 13, 5, 7), (50, 40, 0, 9), (430, 33, 64, 20), (0, 8, 8, 4)]


@each_dtype
@pytest.mark.parametrize("edges, features, hidden, count", RADIAL)
@pytest.mark.parametrize(
    "basis, envelope, activation",
    [("gaussian", "cosine", "shifted_softplus"), ("bessel", "polynomial", "silu")],
)
def test_radial_filters(edges, features, hidden, count, basis, envelope, activation, dtype):
    what = radial(basis, envelope, activation)
    weights = network(basis, features, hidden, count, dtype)
    r = np.random.default_rng(3).uniform(0.7, 5.4, edges).astype(dtype)
    a, b = (normals(edges, features, seed=seed, dtype=dtype) for seed in (4, 5))
    w, slope, bend = radial_reference.filters(what, r, weights)
    loose = {"float32": "float32", "float64": "float64"}[dtype]

    def values(out, threads):
        atoms.radial_filters(what, r, weights, out, threads=threads)

    def slopes(out, threads):
        atoms.radial_filters(what, r, weights, np.empty_like(out), out, threads=threads)

    def bends(out, threads):
        atoms.radial_curvatures(what, r, weights, b, out, threads=threads)

    scale = 10 if dtype == "float32" else 1  # frequencies of 12 / Å and their squares
    agree(values, w.shape, w, loose)
    agree(lambda out, threads: slopes(out, threads), slope.shape, slope, loose)
    wanted = (b.astype(np.float64) * bend).sum(1)
    found = np.empty(edges, dtype)
    bends(found, 1)
    limit = TOLERANCE[dtype] * scale * max(np.abs(wanted).max(initial=0), 1)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=limit)
    check_gradients(what, r, weights, a, b, dtype, scale)


def check_gradients(what, r, weights, a, b, dtype, scale):
    """Of Σ a ∘ w + b ∘ w′ by the weights, against differences of the oracle."""
    rng = np.random.default_rng(6)
    double = [None if one is None else one.astype(np.float64) for one in weights]
    outs = [None if one is None else np.full(one.shape, np.nan, dtype) for one in weights[1:]]
    for left, right in ((a, b), (a, None), (None, b)):
        atoms.radial_gradients(what, r, weights, left, right, outs, threads=1)
        kept = [None if one is None else one.copy() for one in outs]
        atoms.radial_gradients(what, r, weights, left, right, outs, threads=3)
        for place, (one, again) in enumerate(zip(kept, outs, strict=True), start=1):
            if one is None:
                continue
            assert one.tobytes() == again.tobytes()
            way = rng.standard_normal(one.shape)
            ends = []
            for step in (1e-5, -1e-5):
                moved = list(double)
                moved[place] = double[place] + step * way
                w, slope, _ = radial_reference.filters(what, r, moved)
                total = 0.0 if left is None else (left.astype(np.float64) * w).sum()
                total += 0.0 if right is None else (right.astype(np.float64) * slope).sum()
                ends.append(total)
            wanted, found = (ends[0] - ends[1]) / 2e-5, (one.astype(np.float64) * way).sum()
            size = np.abs(one.astype(np.float64) * way).sum() + 1
            assert abs(found - wanted) < (1e-8 if dtype == "float64" else 1e-5 * scale) * size


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda x, i, w, o: atoms.convolve(x, w[:, :3].copy(), i, i, o),
            r"filters has shape \[4, 3\]",
        ),
        (
            lambda x, i, w, o: atoms.convolve(x, w, i + 1, i, o),
            "first holds 2 at 1, but must be in",
        ),
        (lambda x, i, w, o: atoms.convolve(x, w, i, i - 1, o), "second holds -1 at 0"),
        (lambda x, i, w, o: atoms.convolve(x, w, i, i, o, both=5), r"both must be in \[0, 4\]"),
        (lambda x, i, w, o: atoms.convolve(x, w, i, i, x), "memory"),
        (lambda x, i, w, o: atoms.convolve(x, w, i.astype(np.int32), i, o), "first"),
        (lambda x, i, w, o: atoms.activation(w, w.copy(), name="gelu"), "name must be one of"),
        (lambda x, i, w, o: atoms.activation(w, w.copy(), name="silu", order=4), "order must be"),
        (lambda x, i, w, o: atoms.Radial(cutoff=-1.0), "cutoff must be a positive length"),
        (lambda x, i, w, o: atoms.Radial(cutoff=1.0, basis="b"), "basis must be one of"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    x, w = normals(2, 1, 8), normals(4, 8)
    with pytest.raises(ValueError, match=message):
        call(x, np.array([0, 1, 0, 1]), w, np.empty_like(x))
