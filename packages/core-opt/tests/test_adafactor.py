"""Adafactor: factored moments, clipping, and steps relative to the weights."""

import numpy as np
import paddle
import pytest
from oarlock.core_opt import optim
from oarlock.core_opt.optim.adafactor import AdafactorRule
from oarlock.core_opt.optim.reference import STEPS

PATHS = pytest.mark.parametrize("path", ["native", "paddle"])
SHAPES = ([], [1], [5], [7, 5], [1, 6], [3, 4, 5], [2, 2, 3, 4], [6, 2, 3, 3], [4, 3, 2, 1, 2])


def parameter(value, dtype="float32"):
    found = paddle.create_parameter(list(np.shape(value)), "float32")
    found.set_value(paddle.to_tensor(np.asarray(value, "float32")))
    return found if dtype == "float32" else paddle.base.framework.EagerParamBase.from_tensor(
        found.astype(dtype)
    )  # fmt: skip


def train(optimizer, parameters, grads):
    """One step along each of ``grads``, a list of arrays for each step."""
    for step in grads:
        loss = sum(
            (p.astype("float32") * paddle.to_tensor(np.asarray(g, "float32"))).sum()
            for p, g in zip(parameters, step)
        )
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()


def draw(shapes, steps, seed=0):
    rng = np.random.default_rng(seed)
    values = [rng.standard_normal(shape).astype("float32") for shape in shapes]
    return values, [
        [rng.standard_normal(shape).astype("float32") for shape in shapes] for _ in range(steps)
    ]


@PATHS
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"beta1": 0.9, "weight_decay": 0.1},
        {"beta1": 0.9, "scale_parameter": False},
        {"relative_step": False, "learning_rate": 0.7, "weight_decay": 0.1},
        {"learning_rate": 0.7, "weight_decay": 0.1},
        {"scale_parameter": False, "clip_threshold": 0.3},
        {"min_dim_factored": 4, "decay_exponent": 0.5},
        {"layout": "conv", "epsilon_scale": 2.0},
        {"layout": "experts", "epsilon": 0.1, "clip_threshold": None},
    ],
    ids=str,
)
def test_equals_the_reference(path, options):
    options = {"learning_rate": 0.05, **options}
    values, grads = draw(SHAPES, 10)
    parameters = [parameter(value) for value in values]
    optimizer = optim.Adafactor(parameters=parameters, path=path, **options)
    train(optimizer, parameters, grads)
    defaults = {**optim.info("adafactor").defaults, **options}
    for index, value in enumerate(values):
        expected, state = value.astype("float64"), {}
        for number, step in enumerate(grads, 1):
            expected = STEPS["adafactor"](
                expected, np.asarray(step[index], "float64"), state,
                step=number, lr=options["learning_rate"], role=None, options=defaults,
            )  # fmt: skip
        error = np.abs(parameters[index].numpy() - expected).max()
        assert error < 2e-5 * max(1.0, np.abs(expected).max()), SHAPES[index]


@PATHS
@pytest.mark.parametrize("beta1", [0.0, 0.9])
def test_a_stack_of_experts_equals_its_matrices(path, beta1):
    (value,), grads = draw([[3, 6, 4]], 5)
    stack, matrices = parameter(value), [parameter(matrix) for matrix in value]
    options = {"learning_rate": 0.05, "beta1": beta1, "weight_decay": 0.1, "path": path}
    train(optim.Adafactor(parameters=[stack], **options), [stack], grads)
    apart = [list(grad) for (grad,) in grads]
    train(optim.Adafactor(parameters=matrices, **options), matrices, apart)
    for index, matrix in enumerate(matrices):
        np.testing.assert_allclose(stack.numpy()[index], matrix.numpy(), rtol=1e-6, atol=1e-7)


@PATHS
def test_factors_are_exact_for_squares_of_rank_one(path):
    """There the first direction is the sign of the gradient, of RMS 1: nothing is clipped."""
    rng = np.random.default_rng(0)
    grad = np.outer(10.0 ** rng.uniform(-3, 3, 8), 10.0 ** rng.uniform(-3, 3, 6))
    grad *= rng.choice([-1.0, 1.0], grad.shape)
    w = parameter(np.zeros([8, 6]))
    optimizer = optim.Adafactor(0.5, parameters=[w], scale_parameter=False, path=path)
    train(optimizer, [w], [[grad]])
    np.testing.assert_allclose(w.numpy(), -0.5 * np.sign(grad), rtol=1e-5)


@PATHS
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_rows_and_columns_without_a_gradient_stay(path, scale):
    (value,), grads = draw([[8, 6]], 5)
    for (grad,) in grads:
        grad *= scale
        grad[2], grad[:, 3] = 0.0, 0.0
    w = parameter(value)
    optimizer = optim.Adafactor(0.05, parameters=[w], path=path)
    train(optimizer, [w], grads)
    moved = w.numpy() != value
    assert not moved[2].any() and not moved[:, 3].any() and moved.sum() == 7 * 5
    assert np.isfinite(w.numpy()).all()


@PATHS
def test_vectors_keep_their_full_second_moment(path):
    (value,), grads = draw([[9]], 6)
    w = parameter(value)
    optimizer = optim.Adafactor(0.01, parameters=[w], path=path)
    train(optimizer, [w], grads)
    expected = 0.0
    for number, (grad,) in enumerate(grads, 1):
        decay = 1 - number**-0.8
        expected = decay * expected + (1 - decay) * np.square(grad.astype("float64"))
    state = optimizer.state_dict()
    np.testing.assert_allclose(state[f"{w.name}_columns_0"].numpy(), expected, rtol=1e-6)


@PATHS
def test_a_gradient_that_jumps_is_clipped(path):
    """The average has hardly seen the new size, so that the direction would be far too long."""
    rng = np.random.default_rng(0)
    small = [[rng.standard_normal([8, 6]) * 1e-3] for _ in range(50)]
    w = parameter(np.ones([8, 6]))
    optimizer = optim.Adafactor(0.25, parameters=[w], relative_step=False, path=path)
    train(optimizer, [w], small)
    before = w.numpy().astype("float64")
    train(optimizer, [w], [[rng.standard_normal([8, 6])]])
    moved = np.sqrt(np.mean(np.square(w.numpy() - before)))
    np.testing.assert_allclose(moved, 0.25 * np.sqrt(np.mean(before**2)), rtol=1e-5)


@PATHS
def test_relative_steps_shrink_with_the_root_of_the_step(path):
    w = parameter(np.zeros([4]))
    optimizer = optim.Adafactor(0.5, parameters=[w], scale_parameter=False, path=path)
    moves = []
    for _ in range(9):
        before = w.numpy()[0]
        train(optimizer, [w], [[np.ones([4])]])
        moves.append(before - w.numpy()[0])
    expected = [min(0.5, number**-0.5) for number in range(1, 10)]
    np.testing.assert_allclose(moves, expected, rtol=1e-5)


@PATHS
def test_weights_at_zero_take_the_least_scale(path):
    w = parameter(np.zeros([3, 4]))
    train(optim.Adafactor(0.5, parameters=[w], path=path), [w], [[np.ones([3, 4])]])
    np.testing.assert_allclose(w.numpy(), -0.5e-3, rtol=1e-5)


@PATHS
def test_steps_do_not_depend_on_the_size_of_the_gradient(path):
    found = []
    for scale in (2.0**-20, 1.0, 2.0**20):
        (value,), grads = draw([[7, 5]], 5)
        w = parameter(value)
        optimizer = optim.Adafactor(0.05, parameters=[w], path=path)
        train(optimizer, [w], [[grad * scale] for (grad,) in grads])
        found.append(w.numpy())
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)
    np.testing.assert_allclose(found[2], found[1], rtol=1e-6)


@pytest.mark.parametrize(
    "shape,options,rows,columns",
    [
        ([1024, 1024], {}, (1024,), (1024,)),
        ([9], {}, (1,), (9,)),
        ([], {}, (1,), (1,)),
        ([8, 64, 32], {}, (8, 64), (8, 32)),
        ([2, 8, 64, 32], {"layout": "experts"}, (2, 8, 64), (2, 8, 32)),
        ([64, 32, 3, 3], {}, (64,), (288,)),
        ([64, 32, 3], {"layout": "conv"}, (64,), (96,)),
        ([64, 32], {"min_dim_factored": 33}, (1,), (2048,)),
        ([8, 64, 32], {"min_dim_factored": 33}, (8, 1), (8, 2048)),
    ],
)
def test_state_grows_with_rows_and_columns(shape, options, rows, columns):
    state = AdafactorRule(**options).state(tuple(shape))
    assert state == {"rows": rows, "columns": columns}
    stated = optim.info("adafactor").state_bytes_per_parameter
    if shape == [1024, 1024]:
        assert stated * 1024**2 == 4 * (rows[0] + columns[0])


def test_momentum_is_kept_only_when_wanted():
    assert "momentum" not in AdafactorRule().state((4, 3))
    assert AdafactorRule(beta1=0.9).state((4, 3))["momentum"] == (4, 3)


@PATHS
@pytest.mark.parametrize("beta1", [0.0, 0.9])
def test_every_shape_saves_and_loads_mid_run(path, beta1, tmp_path):
    values, grads = draw(SHAPES, 10)
    first = [parameter(value) for value in values]
    options = {"learning_rate": 0.05, "beta1": beta1, "path": path}
    ours = optim.Adafactor(parameters=first, **options)
    train(ours, first, grads[:5])
    paddle.save(ours.state_dict(), str(tmp_path / "half.pdopt"))
    second = [parameter(w.numpy()) for w in first]
    for w, old in zip(second, first):
        w.name = old.name
    train(ours, first, grads[5:])
    theirs = optim.Adafactor(parameters=second, **options)
    theirs.set_state_dict(paddle.load(str(tmp_path / "half.pdopt")))
    train(theirs, second, grads[5:])
    for w, old in zip(second, first):
        assert w.numpy().tobytes() == old.numpy().tobytes(), old.shape


@PATHS
@pytest.mark.parametrize("beta1", [0.0, 0.9])
def test_bfloat16_stacks_round_stochastically(path, beta1):
    """Steps of an eighth of the spacing below 1 survive, in each expert and in a vector."""

    def run(seed):
        with paddle.utils.unique_name.guard():  # the noise depends on names
            parameters = [parameter(np.ones(shape), "bfloat16") for shape in ([4, 32, 32], [4096])]
        optimizer = optim.Adafactor(
            2.0**-12, parameters=parameters, beta1=beta1, stochastic_rounding=True, seed=seed,
            scale_parameter=False, path=path,
        )  # fmt: skip
        grads = [[np.ones([4, 32, 32]), np.ones([4096])]] * 16
        train(optimizer, parameters, grads)
        return [p.astype("float32").numpy() for p in parameters]

    stack, vector = run(0)
    steps = 16.0 if not beta1 else sum(1 - beta1**number for number in range(1, 17))
    for part in (*stack, vector):
        assert abs((1 - part.mean()) / (steps * 2.0**-12) - 1) < 0.2
    again = run(0)
    assert (again[0] == stack).all() and (again[1] == vector).all()
    assert (run(1)[0] != stack).any()
    assert (stack[0] != stack[1]).any()  # experts round by noise of their own


@PATHS
@pytest.mark.parametrize("beta1", [0.0, 0.9])
def test_the_default_dtype_does_not_matter(path, beta1):
    def run():
        value = np.linspace(-1, 1, 24).reshape(6, 4)
        w = parameter(value)
        options = {"parameters": [w], "beta1": beta1, "path": path}
        train(optim.Adafactor(0.02, **options), [w], draw([[6, 4]], 3))
        return w.numpy()

    first = run()
    paddle.set_default_dtype("float64")
    try:
        np.testing.assert_array_equal(run(), first)
    finally:
        paddle.set_default_dtype("float32")


def test_shards_are_refused(problem):
    model = problem()
    model.gain.is_distributed = True
    with pytest.raises(ValueError, match="is sharded.*update it with AdamW"):
        optim.Adafactor(parameters=model.parameters())
