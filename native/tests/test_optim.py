"""Every step of the optimisers against the oracle: shapes, types, threads and code paths."""

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oarlock import native
from oarlock.native import optim
from oarlock.native.reference import optim as reference

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FLOAT32 = np.dtype(np.float32)
PATHS = native.info().paths
# Types of parameter and gradient.
TYPES = [(FLOAT32, FLOAT32), (BFLOAT16, FLOAT32), (BFLOAT16, BFLOAT16)]
TYPE_NAMES = ["f32-f32", "bf16-f32", "bf16-bf16"]
# Around the vector widths and the size of a chunk (32768).
SHAPES = [(0,), (1,), (7,), (3, 0), (15,), (16,), (17,), (63,), (33, 31), (2, 3, 5), (), (32769,)]
LARGE = [(1000003,), (5,), (32768,), (70000,)]

ADAM = {"lr": 0.01, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.1, "step": 3}
SOPHIA = {"lr": 0.01, "beta1": 0.9, "gamma": 1.0, "eps": 1e-12, "weight_decay": 0.1}
LARS = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1, "trust_coefficient": 0.5, "eps": 1e-8}
ADAFACTOR = {"lr": 0.05, "clip_threshold": 1.0, "eps_scale": 1e-3, "weight_decay": 0.1}
OPTIONS = {
    "adamw": ADAM | {"grad_scale": 0.5},
    "lion": {"lr": 0.01, "beta1": 0.9, "beta2": 0.99, "weight_decay": 0.1, "grad_scale": 0.5},
    "sgd": {"lr": 0.1, "momentum": 0.9, "dampening": 0.2, "weight_decay": 0.1, "grad_scale": 0.5},
    "nesterov": {"lr": 0.1, "momentum": 0.9, "nesterov": True},
    "plain": {"lr": 0.1, "weight_decay": 0.1, "grad_scale": 2.0},
    "lamb": ADAM | {"max_trust_ratio": 5.0},
    "sophia": SOPHIA | {"grad_scale": 0.5},
    "schedule_free_adamw": ADAM | {"average_weight": 0.3, "grad_scale": 0.5},
    "lars": LARS | {"grad_scale": 0.5},
    "lars nesterov": LARS | {"nesterov": True},
    "mars_adamw": ADAM | {"gamma": 0.1, "max_norm": 2.0, "grad_scale": 0.5},
    "mars without limit": ADAM | {"gamma": 0.1, "max_norm": None},
    "mars at first": ADAM | {"gamma": 0.1, "step": 1},
    "adafactor": ADAFACTOR | {"relative": True, "grad_scale": 0.5},
    "adafactor absolute": ADAFACTOR | {"relative": False, "clip_threshold": None},
    "adam_mini": ADAM | {"grad_scale": 0.5},
}
FACTORS, MARS = ("rows", "columns"), ("moment", "moment", "square")
STATES = {
    "adamw": ("moment", "square"),
    "lion": ("moment",),
    "sgd": ("moment",),
    "nesterov": ("moment",),
    "plain": (),
    "lamb": ("moment", "square"),
    "sophia": ("moment", "square"),
    "schedule_free_adamw": ("moment", "square"),
    "lars": ("moment",),
    "lars nesterov": ("moment",),
    "mars_adamw": MARS,
    "mars without limit": MARS,
    "mars at first": MARS,
    "adafactor": FACTORS,
    "adafactor absolute": FACTORS,
    "adam_mini": ("moment", "blocks"),
}
KERNELS = {  # where the name of the case is not the kernel's
    "nesterov": "sgd",
    "plain": "sgd",
    "lars nesterov": "lars",
    "mars without limit": "mars_adamw",
    "mars at first": "mars_adamw",
    "adafactor absolute": "adafactor",
}
RATIOS = {"lamb", "lars", "lars nesterov"}  # cases that return one for each tensor


def matrix(shape):
    """A matrix's shape of as many elements."""
    size = math.prod(shape)
    rows = max(divisor for divisor in range(1, 13) if size % divisor == 0)
    return rows, size // rows


def state_shape(kind, shape):
    return {"rows": shape[:1], "columns": shape[1:], "blocks": matrix(shape)[:1]}.get(kind, shape)


def arrays(case, shapes, types=TYPES[0], seed=0):
    """Lists: parameters, gradients, then the states of ``case``; second moments are positive."""
    rng = np.random.default_rng(seed)
    if STATES[case] == FACTORS:
        shapes = [matrix(shape) for shape in shapes]

    def draw(dtype, kind="moment"):
        normal = [rng.standard_normal(state_shape(kind, shape)) for shape in shapes]
        drawn = normal if kind == "moment" else [np.square(x) for x in normal]
        return [np.asarray(x, FLOAT32).astype(dtype) for x in drawn]

    lists = [draw(types[0]), draw(types[1])]
    lists += [draw(FLOAT32, kind) for kind in STATES[case]]
    return [[np.asarray(array) for array in group] for group in lists]


def copies(lists):
    return [[array.copy() for array in group] for group in lists]


def run(case, lists, *, path=None, **options):
    """The kernel of ``case`` on copies: the lists it changed, and what it returned."""
    lists = copies(lists)
    kernel = getattr(optim, KERNELS.get(case, case))
    with native.forced_path(path or PATHS[0]):
        returned = kernel(*lists, **{**OPTIONS[case], **options})
    return lists, returned


def same(left, right) -> bool:
    """Bit for bit, NaN included."""
    return all(
        a.dtype == b.dtype and a.tobytes() == b.tobytes()
        for first, second in zip(left, right, strict=True)
        for a, b in zip(first, second, strict=True)
    )


CASES = sorted(OPTIONS)
each_case = pytest.mark.parametrize("case", CASES)
each_path = pytest.mark.parametrize("path", PATHS)
each_types = pytest.mark.parametrize("types", TYPES, ids=TYPE_NAMES)


def widened(lists):
    return [[array.astype(FLOAT32) for array in group] for group in lists]


@each_case
@each_path
def test_equals_the_oracle(case, path):
    lists = arrays(case, SHAPES)
    changed, returned = run(case, lists, path=path, threads=2)
    oracle = getattr(reference, KERNELS.get(case, case))
    for index in range(len(SHAPES)):
        given = [group[index] for group in lists] + [None] * (case == "plain")
        wanted = oracle(*given, **OPTIONS[case])
        found = [changed[0][index], *(group[index] for group in changed[2:])]
        for ours, right in zip(found, wanted):
            np.testing.assert_allclose(ours, right, rtol=1e-6, atol=1e-6)
        if case in RATIOS:
            assert returned[index] == pytest.approx(wanted[-1], rel=1e-6)
    assert same([changed[1]], [lists[1]]), "gradients are only read"


@each_case
@each_path
@each_types
def test_bfloat16_is_the_float32_step_rounded_to_nearest(case, path, types):
    lists = arrays(case, SHAPES, types)
    changed, _ = run(case, lists, path=path, threads=2)
    exact, _ = run(case, widened(lists), path=path, threads=2)
    exact[0] = [array.astype(types[0]) for array in exact[0]]
    exact[1] = lists[1]
    assert same(changed, exact)


@each_case
@each_path
def test_stochastic_rounding_follows_the_hash(case, path):
    lists = arrays(case, SHAPES, TYPES[1])
    changed, _ = run(case, lists, path=path, rounding_seed=12345)
    exact, _ = run(case, widened(lists), path=path)
    for index, array in enumerate(exact[0]):
        random = reference.random16(12345, index, array.size).reshape(array.shape)
        wanted = reference.round_randomly(array, random)
        assert same([[changed[0][index]]], [[wanted]])
    assert same(changed[2:], exact[2:]), "state does not depend on the rounding"


@each_case
@each_types
@pytest.mark.parametrize("seed", [None, 7])
def test_same_bits_on_every_path_and_for_any_number_of_threads(case, types, seed):
    lists = arrays(case, LARGE, types)
    base, ratios = run(case, lists, path="portable", threads=1, rounding_seed=seed)
    for path in PATHS:
        for threads in (1, 2, 3, 5):
            other, other_ratios = run(case, lists, path=path, threads=threads, rounding_seed=seed)
            assert same(base, other), (path, threads)
            if case in RATIOS:
                assert np.array_equal(ratios, other_ratios)


def test_stochastic_rounding_is_fair():
    """The mean over seeds is the value itself; neighbours and seeds are not alike."""
    size, seeds = 4096, 32
    value = np.float32(1.0 + 2.0**-7 * 0.3)  # 0.3 of the way to the next bfloat16
    ups = []
    for seed in range(seeds):
        p = np.full(size, 1.0, BFLOAT16)
        optim.sgd([p], [np.full(size, 1.0 - value, FLOAT32)], lr=1.0, rounding_seed=seed)
        ups.append(p.astype(np.float64) > 1.0)
    ups = np.array(ups)
    deviation = math.sqrt(0.3 * 0.7 / ups.size)
    assert abs(ups.mean() - 0.3) < 4 * deviation
    across = np.corrcoef(ups.astype(float))[np.triu_indices(seeds, 1)]
    assert np.abs(across).max() < 6 / math.sqrt(size)
    lag = np.corrcoef(ups[:, 1:].ravel(), ups[:, :-1].ravel())[0, 1]
    assert abs(lag) < 5 / math.sqrt(ups.size)


@each_path
@pytest.mark.parametrize("seed", [None, 3])
def test_not_finite_stays_not_finite(path, seed):
    values = np.array([np.nan, np.inf, -np.inf, 3.3895314e38, 1.0] * 7, FLOAT32)
    p = values.astype(BFLOAT16)
    with native.forced_path(path):
        optim.sgd([p], [np.zeros_like(values)], lr=1.0, rounding_seed=seed)
    assert np.array_equal(p.astype(FLOAT32), values.astype(BFLOAT16).astype(FLOAT32), True)


@each_case
def test_nan_in_the_gradient_shows_in_the_parameter(case):
    lists = arrays(case, [(100,)])
    lists[1][0].flat[50] = np.nan
    changed, _ = run(case, lists)
    assert np.isnan(changed[0][0].flat[50])


@each_case
def test_no_tensors_is_fine(case):
    lists = [[] for _ in range(2 + len(STATES[case]))]
    run(case, lists)


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 200), max_size=6),
    case=st.sampled_from(CASES),
    types=st.sampled_from(TYPES),
    path=st.sampled_from(PATHS),
    threads=st.integers(1, 5),
    seed=st.integers(0, 2**64 - 1) | st.none(),
)
def test_any_list_equals_one_tensor_at_a_time(sizes, case, types, path, threads, seed):
    lists = arrays(case, [(size,) for size in sizes], types)
    together, _ = run(case, lists, path=path, threads=threads, rounding_seed=seed)
    if seed is None:  # with a seed the index of the tensor matters
        for index in range(len(sizes)):
            one = [[group[index]] for group in lists]
            alone, _ = run(case, one, path=path)
            assert same(alone, [[group[index]] for group in together])
    again, _ = run(case, lists, rounding_seed=seed)
    assert same(together, again)
