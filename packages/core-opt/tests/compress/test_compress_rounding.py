"""Grids, packing, GPTQ, AWQ, rotations and residuals, against slow references and each other."""

import logging

import numpy as np
import paddle
import pytest
from oarlock.core_opt import compress
from oarlock.core_opt.compress import grids, hadamard, hessian, packing, reference
from oarlock.core_opt.compress.modifiers import rounding
from oarlock.core_opt.compress.modifiers.low_rank import low_rank
from oarlock.core_opt.compress.modifiers.pruning import Pattern, sparsegpt
from oarlock.core_opt.compress.statistics import InputStatistics
from oarlock.core_opt.compress.work import LayerWork


def problem(rows=24, out=7, tokens=400, seed=0, outlier=False):
    """A weight and correlated inputs."""
    rng = np.random.default_rng(seed)
    mix = rng.standard_normal((rows, rows)) * np.geomspace(3, 0.05, rows)
    x = rng.standard_normal((tokens, rows)) @ mix.T
    weight = rng.standard_normal((rows, out))
    if outlier:
        weight[3] *= 30
    return weight, x


def work_on(weight, x, name="layer"):
    statistics = InputStatistics.empty(len(weight))
    statistics.add(paddle.to_tensor(x.astype("float32")))
    return LayerWork(name=name, weight=weight, target=weight, statistics=statistics, bias=None)


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("shape", [(1, 1), (8, 3), (13, 5), (31, 2)])
def test_packing_round_trip(bits, shape):
    codes = np.random.default_rng(bits).integers(0, 2**bits, shape).astype(np.uint8)
    fields = packing.pack(codes, bits)
    np.testing.assert_array_equal(packing.unpack(fields, bits, shape[0]), codes)
    tensors = [paddle.to_tensor(field) for field in fields]
    np.testing.assert_array_equal(packing.unpack_tensor(tensors, bits, shape[0]).numpy(), codes)
    assert sum(field.size for field in fields) <= (-(-shape[0] * bits // 8) + 2) * shape[1]


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(
    "observer", [compress.AbsMax(), compress.Percentile(keep=1.0), compress.MSE()]
)
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_grid_errors_are_at_most_half_a_step_inside(bits, observer, symmetric):
    weight = np.random.default_rng(0).standard_normal((24, 5))
    grid = observer.grid(weight, bits=bits, group=8, symmetric=symmetric)
    error = np.abs(grid.round(weight) - weight)
    step = np.repeat(grid.scale, 8, 0)
    if not isinstance(observer, compress.MSE):
        # the upper end of a symmetric grid, and a rounded zero, may cut off half a step more
        assert (error <= 1.001 * step).all()
    zero = grid.round(np.zeros_like(weight))
    np.testing.assert_array_equal(zero, 0.0)


def test_mse_observer_has_the_least_error_and_percentile_cuts_outliers():
    weight = np.random.default_rng(0).standard_normal((64, 9))
    weight[5] *= 20
    options = {"bits": 3, "group": 64, "symmetric": False}
    errors = {
        name: np.square(observer.grid(weight, **options).round(weight) - weight).sum(0)
        for name, observer in (
            ("absmax", compress.AbsMax()),
            ("percentile", compress.Percentile(keep=0.9)),
            ("mse", compress.MSE()),
        )
    }
    assert (errors["mse"] <= errors["absmax"] + 1e-9).all()
    cut = compress.Percentile(keep=0.9).grid(weight, **options).scale
    assert (cut < compress.AbsMax().grid(weight, **options).scale).all()


@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("group", [24, 8])
@pytest.mark.parametrize("block", [5, 8, 128])
def test_gptq_is_the_surgeon(act_order, group, block):
    weight, x = problem()
    moment, _ = hessian.damped(x.T @ x / len(x), 0.01, "layer")
    fixed = compress.AbsMax().grid(weight, bits=3, group=group, symmetric=False)

    def make(part):  # the same grid for both, whatever the weights became
        return fixed if len(part) == len(weight) else fixed_part()

    made = iter(range(len(weight) // group))

    def fixed_part():
        number = next(made)
        at = slice(number, number + 1)
        return grids.Grid(bits=3, scale=fixed.scale[at], zero=fixed.zero[at], rows=group)

    codes, grid = rounding.gptq(weight, moment, make, group=group, act_order=act_order, block=block)

    def rounded(value, i, o):
        row = np.zeros((1, weight.shape[1]))
        row[0, o] = value
        return fixed.of_row(i).round(row)[0, o]

    order = np.argsort(-np.diagonal(moment), kind="stable") if act_order else None
    expected = reference.gptq(weight, moment, rounded, order)
    np.testing.assert_allclose(grid.values(codes), expected, atol=1e-5)


@pytest.mark.parametrize("block", [6, 24, 128])
def test_sparsegpt_is_the_surgeon(block):
    weight, x = problem()
    moment, _ = hessian.damped(x.T @ x / len(x), 0.01, "layer")
    mask, found = sparsegpt(weight, moment, Pattern(), sparsity=0.5, block=block)
    assert mask.mean() == pytest.approx(0.5)
    np.testing.assert_allclose(found, reference.sparsegpt(weight, moment, mask), atol=1e-8)


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("group", [None, 8])
def test_order_of_methods_on_a_correlated_problem(bits, group):
    """GPTQ below RTN, AWQ no worse than RTN, a residual below none."""
    errors = {}
    options = {"bits": bits, "group": group}
    for name, modifiers in {
        "rtn": [compress.RTN(**options)],
        "gptq": [compress.GPTQ(**options)],
        "awq": [compress.AWQ(**options), compress.RTN(**options)],
        "residual": [compress.RTN(**options), compress.LowRank(rank=2)],
    }.items():
        work = work_on(*problem())
        for modifier in modifiers:
            modifier.apply(work)
        errors[name] = work.relative_error()
    assert errors["gptq"] < 0.7 * errors["rtn"]
    assert errors["awq"] <= errors["rtn"] * 1.0001
    assert errors["residual"] < 0.8 * errors["rtn"]


def test_rotation_helps_where_there_are_outliers():
    errors = {}
    for name, modifiers in {
        "plain": [compress.RTN(bits=4)],
        "rotated": [compress.Hadamard(), compress.RTN(bits=4)],
    }.items():
        weight, _ = problem(rows=32, outlier=True)
        work = work_on(weight, np.random.default_rng(1).standard_normal((400, 32)))
        for modifier in modifiers:
            modifier.apply(work)
        errors[name] = work.relative_error()
    assert errors["rotated"] < 0.3 * errors["plain"]


@pytest.mark.parametrize("size, block", [(8, 8), (24, 8), (24, 4), (256, 256), (128, 2)])
def test_hadamard_leaves_the_function_as_it_is(size, block):
    rng = np.random.default_rng(0)
    weight, x = rng.standard_normal((size, 6)), rng.standard_normal((10, size))
    sign = hadamard.signs(size, 3)
    rotated = hadamard.rotate_rows(weight, sign, block)
    x_rotated = hadamard.rotate_input(
        paddle.to_tensor(x.astype("float32")), paddle.to_tensor(sign.astype("int8")), block
    )
    np.testing.assert_allclose(x_rotated.numpy() @ rotated, x @ weight, atol=1e-5 * size**0.5)
    moment = x.T @ x
    found = x_rotated.numpy().astype(np.float64)
    np.testing.assert_allclose(
        hadamard.rotate_hessian(moment, sign, block), found.T @ found, atol=1e-3
    )
    back = hadamard.rotate_rows(rotated, np.ones(size), block) * sign[:, None]
    np.testing.assert_allclose(back, weight, atol=1e-12)


@pytest.mark.parametrize("transform", [compress.Hadamard(), compress.SmoothQuant(), compress.AWQ()])
def test_transforms_leave_the_model_as_it_is(toy, transform):
    """At 8 bits with a residual of full rank only the transform is left; to 1e-5."""
    tokens = toy.batches[0][0]
    plain, changed = toy.Model().eval(), toy.Model().eval()
    parts = (transform, compress.RTN(bits=8, targets=("blocks.*.mix",)), compress.LowRank(rank=16))
    parts = tuple(p.replace(targets=("blocks.*.mix",)) for p in parts)
    compress.oneshot(changed, compress.Recipe(modifiers=parts), toy.data)
    assert isinstance(changed.blocks[0].mix, compress.QuantizedLinear)
    scale = float(plain(tokens).abs().max())
    np.testing.assert_allclose(
        changed(tokens).numpy(), plain(tokens).numpy(), atol=1e-5 * max(scale, 1.0)
    )


def test_residual_is_the_best_of_its_rank():
    weight, x = problem()
    moment = x.T @ x / len(x) + 0.01 * np.eye(len(weight))
    left, right = low_rank(weight, moment, 3)
    lower = np.linalg.cholesky(moment)
    values = np.linalg.svd(lower.T @ weight, compute_uv=False)
    least = np.square(values[3:]).sum()
    assert hessian.error(weight - left @ right, moment) == pytest.approx(least, rel=1e-3)


def test_rank_deficient_hessian_is_damped_and_logged(caplog):
    weight, _ = problem()
    x = np.random.default_rng(0).standard_normal((5, 24))  # rank 5 of 24
    work = work_on(weight, x)
    with caplog.at_level(logging.WARNING):
        compress.GPTQ(bits=4, damping=0.0).apply(work)
    assert "layer" in caplog.text and "damping" in caplog.text
    assert work.damping > 0 and np.isfinite(work.quantized()).all()
    indefinite = -np.eye(4)
    indefinite[0, 0] = 1000.0
    with pytest.raises(ValueError, match="positive definite even at damping"):
        hessian.damped(np.array([[1.0, 1e6], [1e6, 1.0]]), 0.01, "layer")


def test_inputs_that_are_always_zero(toy):
    weight, x = problem()
    x[:, 4] = 0
    work = work_on(weight, x)
    compress.GPTQ(bits=4, damping=0.0).apply(work)
    assert np.isfinite(work.quantized()).all()


def test_group_that_does_not_divide_leaves_the_model(toy):
    model = toy.Model()
    before = toy.bits_of(model)
    with pytest.raises(
        ValueError, match=r"group must divide the 16 inputs of blocks.0.mix, got 5.*4, 8"
    ):
        compress.oneshot(model, compress.Recipe(modifiers=(compress.GPTQ(group=5),)), toy.data)
    assert toy.bits_of(model) == before


def test_state_dict_is_as_small_as_its_bits(toy):
    model = toy.Model()
    compress.oneshot(
        model, compress.Recipe(modifiers=(compress.RTN(bits=3, symmetric=True),)), toy.data
    )
    layer = model.blocks[0].down
    assert layer.num_bytes() == 32 * 16 * 3 // 8 + 16 * 4
    held = sum(t.numpy().nbytes for name, t in layer.state_dict().items() if name != "bias")
    assert held == layer.num_bytes()


def test_layer_bits(toy):
    model = toy.Model()
    one = compress.RTN(bits=4, layer_bits={"head": 8, "blocks.*.up": 2})
    compress.oneshot(model, compress.Recipe(modifiers=(one,)), toy.data)
    assert model.head.spec.bits == 8 and model.blocks[1].up.spec.bits == 2
    assert model.blocks[1].mix.spec.bits == 4


def test_two_roundings_of_one_layer_are_refused(toy):
    with pytest.raises(ValueError, match="two modifiers"):
        compress.oneshot(
            toy.Model(),
            compress.Recipe(modifiers=(compress.RTN(bits=4), compress.RTN(bits=8))),
            toy.data,
        )


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: compress.RTN(bits=9), "bits"),
        (lambda: compress.RTN(targets="*"), "targets"),
        (lambda: compress.GPTQ(damping=-1.0), "damping"),
        (lambda: compress.Hadamard(block=12), "block"),
        (lambda: compress.SparseGPT(pattern="4:2"), "pattern"),
        (lambda: compress.Magnitude(sparsity=1.0), "sparsity"),
        (lambda: compress.Recipe(modifiers=()), "empty"),
        (lambda: compress.Recipe(modifiers=(compress.Hadamard(),)), "rounds"),
        (lambda: compress.Recipe(modifiers=(compress.LowRank(),)), "rounds"),
        (lambda: compress.Recipe(modifiers=(compress.GPTQ(),), pipeline="data_free"), "data_free"),
        (lambda: compress.Recipe.from_yaml("modifiers: [{kind: gptk}]"), "did you mean 'gptq'"),
        (
            lambda: compress.Recipe.from_yaml("modifiers: [{kind: rtn, observer: {kind: mze}}]"),
            "mse",
        ),
        (lambda: compress.Recipe.from_yaml("modifiers: ["), "YAML"),
        (lambda: compress.RemoveHeads(), "heads"),
    ],
)
def test_wrong_settings_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_patterns_that_match_nothing_are_named(toy):
    one = compress.RTN(targets=("*.attn",))
    with pytest.raises(ValueError, match="targets pattern"):
        compress.oneshot(toy.Model(), compress.Recipe(modifiers=(one,)), toy.data)
