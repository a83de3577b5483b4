"""Muon and its Newton-Schulz iteration."""

import math

import numpy as np
import paddle
import pytest
from oarlock.core_opt import optim
from oarlock.core_opt.optim import Role, newton_schulz
from oarlock.core_opt.optim.muon import MuonRule
from oarlock.core_opt.optim.reference import muon as reference
from oarlock.native.paddle import kernels

# Singular values after five steps, for inputs in [LOW, 1] after normalisation.
LOW = 0.02
BANDS = {"jordan": (0.681, 1.135), "polar_express": (0.858, 1.142)}


def matrix_with(sigma, rows, columns, seed=0):
    rng = np.random.default_rng(seed)
    u = np.linalg.qr(rng.standard_normal([rows, len(sigma)]))[0]
    v = np.linalg.qr(rng.standard_normal([columns, len(sigma)]))[0]
    return (u * sigma @ v.T).astype("float32")


def through(name, sigma, steps=5):
    for a, b, c in newton_schulz.coefficients(name, steps):
        sigma = a * sigma + b * sigma**3 + c * sigma**5
    return sigma


@pytest.mark.parametrize("name", BANDS)
@pytest.mark.parametrize("rows,columns", [(24, 24), (16, 40), (40, 16)])
def test_singular_values_end_in_the_band(name, rows, columns):
    sigma = np.geomspace(1, 0.06, min(rows, columns))
    matrix = paddle.to_tensor(matrix_with(sigma, rows, columns))
    safety = newton_schulz.SAFETY.get(name, 1.0)
    assert sigma[-1] / (np.linalg.norm(sigma) * safety) > LOW
    triples = newton_schulz.coefficients(name, 5)
    found = np.linalg.svd(
        newton_schulz.orthogonalize(matrix, triples, safety=safety).numpy(), compute_uv=False
    )
    low, high = BANDS[name]
    assert low <= found.min() and found.max() <= high


@pytest.mark.parametrize("name", newton_schulz.NAMES)
def test_equals_the_singular_value_form(name):
    for seed, (rows, columns) in enumerate([(1, 1), (1, 9), (9, 1), (5, 5), (17, 31), (33, 8)]):
        matrix = np.random.default_rng(seed).standard_normal([rows, columns])
        options = {"coefficients": name, "ns_steps": 5}
        expected = reference.newton_schulz(matrix, options)
        found = newton_schulz.orthogonalize(
            paddle.to_tensor(matrix.astype("float32")),
            newton_schulz.coefficients(name, 5),
            safety=newton_schulz.SAFETY.get(name, 1.0),
        )
        np.testing.assert_allclose(found.numpy(), expected, atol=2e-4)


def test_classic_converges_to_the_orthogonal_factor():
    matrix = np.random.default_rng(0).standard_normal([6, 9])
    u, _, vt = np.linalg.svd(matrix, full_matrices=False)
    found = newton_schulz.orthogonalize(
        paddle.to_tensor(matrix), newton_schulz.coefficients("classic", 15)
    )
    np.testing.assert_allclose(found.numpy(), u @ vt, atol=1e-6)


def test_polar_express_goes_on_classically():
    assert newton_schulz.coefficients("polar_express", 7)[5:] == (newton_schulz.CLASSIC,) * 2
    sigma = through("polar_express", np.geomspace(1e-3, 1, 1000) / 1.02, 12)
    np.testing.assert_allclose(sigma, 1, atol=1e-6)


def test_stack_equals_its_matrices_and_zero_stays_zero():
    rng = np.random.default_rng(0)
    stack = rng.standard_normal([3, 12, 5]).astype("float32")
    stack[1] = 0
    triples = newton_schulz.coefficients("jordan", 5)
    found = newton_schulz.orthogonalize(paddle.to_tensor(stack), triples, scale=0.5).numpy()
    for matrix, result in zip(stack, found):
        single = newton_schulz.orthogonalize(paddle.to_tensor(matrix), triples).numpy()
        np.testing.assert_allclose(result, 0.5 * single, atol=1e-5)
    assert not found[1].any()


@pytest.mark.parametrize("coefficients", ["jordan", "polar_express"])
@pytest.mark.parametrize("update_scale", ["spectral", "rms"])
@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize(
    "role,shape", [("hidden_matrix", [12, 20]), ("hidden_matrix", [20, 12]),
                   ("experts", [3, 8, 12]), ("conv", [6, 4, 3, 3]), ("conv", [12, 2, 3])],
)  # fmt: skip
def test_equals_reference(coefficients, update_scale, nesterov, role, shape):
    rng = np.random.default_rng(0)
    layer = paddle.nn.Layer()
    w = layer.create_parameter(shape)
    w.set_value(rng.standard_normal(shape).astype("float32"))
    options = {
        "coefficients": coefficients,
        "update_scale": update_scale,
        "nesterov": nesterov,
        "weight_decay": 0.1,
        "ns_steps": 5,
        "momentum": 0.9,
    }
    optimizer = optim.Muon(0.02, [{"params": [w], "role": role}], **options)
    expected, state = w.numpy().astype("float64"), {}
    for number in range(1, 6):
        grad = rng.standard_normal(shape)
        expected = reference.step(
            expected, grad, state, step=number, lr=0.02, role=role, options=options
        )
        (w * paddle.to_tensor(grad.astype("float32"))).sum().backward()
        optimizer.step()
        optimizer.clear_grad()
    np.testing.assert_allclose(w.numpy(), expected, atol=2e-5)


def test_update_does_not_depend_on_the_size_of_the_gradient():
    found = []
    for size in (1e-3, 1.0, 1e4):
        w = paddle.nn.Linear(8, 8).weight
        w.set_value(np.zeros([8, 8], "float32"))
        optimizer = optim.Muon(1.0, [{"params": [w], "role": "hidden_matrix"}])
        grad = np.random.default_rng(0).standard_normal([8, 8]) * size
        (w * paddle.to_tensor(grad.astype("float32"))).sum().backward()
        optimizer.step()
        found.append(w.numpy())
    np.testing.assert_allclose(found[0], found[1], atol=1e-3)
    np.testing.assert_allclose(found[2], found[1], atol=1e-3)


def test_moonlight_scale_gives_adamws_root_mean_square():
    for shape in ([64, 64], [32, 128]):
        w = paddle.nn.Layer().create_parameter(shape)
        w.set_value(np.zeros(shape, "float32"))
        optimizer = optim.Muon(
            1.0, [{"params": [w], "role": "hidden_matrix"}], update_scale="rms",
            coefficients="polar_express",
        )  # fmt: skip
        grad = np.random.default_rng(0).standard_normal(shape).astype("float32")
        (w * paddle.to_tensor(grad)).sum().backward()
        optimizer.step()
        assert math.sqrt(np.mean(w.numpy() ** 2)) == pytest.approx(0.2, rel=0.1)


def test_rest_uses_its_own_learning_rate():
    scales = {"embedding": 0.5, "head": 0.1, "vector": 2.0}
    layer = paddle.nn.Layer()
    parameters = {role: layer.create_parameter([4, 4]) for role in scales}
    for parameter in parameters.values():
        parameter.set_value(np.zeros([4, 4], "float32"))
    groups = [{"params": [p], "role": role} for role, p in parameters.items()]
    optimizer = optim.Muon(0.1, groups, adamw_lr_scale=scales)
    sum(p.sum() for p in parameters.values()).backward()
    optimizer.step()
    for role, parameter in parameters.items():
        np.testing.assert_allclose(parameter.numpy(), -0.1 * scales[role], rtol=1e-5)


def test_defaults_are_jordans():
    defaults = optim.info("muon").defaults
    assert (defaults["learning_rate"], defaults["momentum"], defaults["ns_steps"]) == (
        0.02,
        0.95,
        5,
    )
    layer = paddle.nn.Linear(4, 4)
    layer.bias.set_value(np.zeros([4], "float32"))
    optimizer = optim.Muon(0.02, [{"params": [layer.bias], "role": "vector"}])
    layer.bias.sum().backward()
    optimizer.step()
    np.testing.assert_allclose(layer.bias.numpy(), -3e-4, rtol=1e-4)


def test_bfloat16_products():
    kernels.load()
    rng = np.random.default_rng(0)
    for shape in ([3, 48, 64], [1, 128, 128], [1, 128, 512], [1, 256, 256]):
        matrix = paddle.to_tensor(rng.standard_normal(shape).astype("float32"))
        for name, (low, high) in {"jordan": (0.01, 0.03), "polar_express": (0.05, 0.12)}.items():
            triples = newton_schulz.coefficients(name, 5)
            found, exact = (
                newton_schulz.orthogonalize(matrix, triples, safety=1.02, dtype=dtype).numpy()
                for dtype in ("bfloat16", None)
            )
            assert low < np.linalg.norm(found - exact) / np.linalg.norm(exact) < high
    w = parameter([8, 12])
    optimizer = optim.Muon(0.02, [{"params": [w], "role": "hidden_matrix"}], ns_dtype="bfloat16")
    (w * 2.0).sum().backward()
    optimizer.step()
    assert w.dtype == paddle.float32 and np.isfinite(w.numpy()).all()


def test_bfloat16_without_kernels_is_refused(monkeypatch):
    def missing(*args, **options):
        raise RuntimeError("The kernel with key (CPU, bfloat16) of kernel `matmul` is missing")

    monkeypatch.setattr(paddle, "matmul", missing)
    with pytest.raises(ValueError, match=r"kernels.load\(\) first"):
        optim.Muon(
            0.02, [{"params": [parameter([8, 8])], "role": "hidden_matrix"}], ns_dtype="bfloat16"
        )


# Refusals ---------------------------------------------------------------------------------------


def parameter(shape):
    return paddle.nn.Layer().create_parameter(shape)


@pytest.mark.parametrize(
    "role,shape,message",
    [
        ("hidden_matrix", [64], "flattened shard"),
        ("hidden_matrix", [4, 8, 8], "role experts"),
        ("experts", [8, 8], "3 axes"),
        ("conv", [8], "role vector"),
        ("conv", [8, 8], "3 or 4 or 5 axes"),
    ],
)
def test_wrong_shapes_are_refused(role, shape, message):
    with pytest.raises(ValueError, match=message):
        optim.Muon(0.02, [{"params": [parameter(shape)], "role": role}])


def test_shards_are_refused():
    whole = parameter([8, 8])
    whole.is_distributed = True  # as tensor-parallel layers mark their slices
    with pytest.raises(ValueError, match="sharded"):
        optim.Muon(0.02, [{"params": [whole], "role": "hidden_matrix"}])
    optim.Muon(0.02, [{"params": [whole], "role": "embedding"}])


def test_a_slice_handed_over_at_the_step_is_refused():
    """Sharded optimisers hand over flat slices under the parameter's own name."""
    w = parameter([8, 8])
    optimizer = optim.Muon(0.02, [{"params": [w], "role": "hidden_matrix"}])
    flat = paddle.zeros([64])
    flat.name = w.name
    with pytest.raises(ValueError, match="flattened shard"):
        optimizer._apply_optimize(None, None, [(flat, paddle.ones([64]))])


def test_roles_are_needed():
    with pytest.raises(ValueError, match=r"no role for parameter.*roles=optim.roles\(model\)"):
        optim.Muon(0.02, [parameter([4, 4])])
    with pytest.raises(ValueError, match="unknown role 'hiden'"):
        optim.Muon(0.02, [{"params": [parameter([4, 4])], "role": "hiden"}])
    with pytest.raises(ValueError, match="not in these roles"):
        optim.Muon(0.02, [parameter([4, 4])], optim.roles(paddle.nn.Linear(2, 2)))


def test_a_group_may_override_the_options_of_its_rule_only():
    w, b = parameter([4, 4]), parameter([4])
    groups = [{"params": [w], "role": Role.HIDDEN_MATRIX, "momentum": 0.5, "ns_steps": 3}]
    optimizer = optim.Muon(0.02, groups)
    assert optimizer._slots[w.name].rule == MuonRule(momentum=0.5, ns_steps=3)
    with pytest.raises(ValueError, match="unknown group key 'momentum'"):
        optim.Muon(0.02, [{"params": [b], "role": "vector", "momentum": 0.5}])
    with pytest.raises(ValueError, match=r"momentum must lie in \[0, 1\)"):
        optim.Muon(0.02, [{"params": [w], "role": "hidden_matrix", "momentum": 1.5}])


# Variance and floor -------------------------------------------------------------------------------


def steps(shape, grads, name="muon", start=0.0, role="hidden_matrix", **options):
    """Weights after each of these gradients, at learning rate 1 from ``start``."""
    w = parameter(shape)
    w.set_value(np.broadcast_to(np.float32(start), shape).copy())
    optimizer = optim.create(name, [{"params": [w], "role": role}], learning_rate=1.0, **options)
    found = [w.numpy()]
    for grad in grads:
        (w * paddle.to_tensor(grad.astype("float32"))).sum().backward()
        optimizer.step()
        optimizer.clear_grad()
        found.append(w.numpy())
    return np.stack(found)


@pytest.mark.parametrize("path", ["native", "paddle"])
def test_options_that_are_off_leave_the_bits(path):
    """Muon as it was without them: momentum, Newton-Schulz, and one step."""
    rng = np.random.default_rng(0)
    grads = [rng.standard_normal([12, 20]).astype("float32") for _ in range(3)]
    found = steps([12, 20], grads, path=path, variance=None, beta2=0.5, uw_floor=0.0)[-1]
    w, momentum = paddle.zeros([12, 20]), paddle.zeros([12, 20])
    for grad in grads:
        grad = paddle.to_tensor(grad)
        momentum.lerp_(grad, 1 - 0.95)
        stack = paddle.stack([grad.lerp(momentum, 0.95)])
        triples = newton_schulz.coefficients("jordan", 5)
        update = newton_schulz.orthogonalize(stack, triples, scale=math.sqrt(20 / 12))
        w.subtract_(update[0])
    assert found.tobytes() == w.numpy().tobytes()


@pytest.mark.parametrize("role,shape", [("hidden_matrix", [16, 48]), ("conv", [48, 4, 4])])
def test_normuon_keeps_the_norm_and_equalises_the_neurons(role, shape):
    rng = np.random.default_rng(0)
    sizes = np.geomspace(0.1, 10, 48)
    sizes = sizes.reshape(-1, 1, 1) if role == "conv" else sizes
    grads = [rng.standard_normal(shape) * sizes for _ in range(60)]
    spread, lengths = {}, {}
    for name in ("muon", "normuon"):
        updates = np.diff(steps(shape, grads, name, role=role), axis=0)
        matrices = updates.reshape(60, shape[0], -1)
        lengths[name] = np.linalg.norm(matrices, axis=(1, 2))
        squares = (matrices[20:] ** 2).mean(axis=(0, 2 if role == "conv" else 1))
        spread[name] = np.sqrt(squares.max() / squares.min())
    np.testing.assert_allclose(lengths["normuon"], lengths["muon"], rtol=1e-4)
    assert spread["normuon"] < 1.5 and spread["muon"] > 3, spread


def test_floor_of_the_matrix():
    (grad,) = np.random.default_rng(0).standard_normal([1, 8, 12])
    free = np.diff(steps([8, 12], [grad], start=0.1), axis=0)[0]
    ratio = np.linalg.norm(free) / (0.1 * math.sqrt(96))
    low, high = (
        np.diff(steps([8, 12], [grad], start=0.1, uw_floor=floor), axis=0)[0]
        for floor in (0.9 * ratio, 3 * ratio)
    )
    np.testing.assert_array_equal(low, free)  # already above the floor
    np.testing.assert_allclose(high, 3 * free, rtol=1e-4, atol=1e-5)


def test_floor_of_each_neuron():
    (grad,) = np.random.default_rng(0).standard_normal([1, 8, 12])
    start = np.where(np.arange(12) < 4, 100.0, 0.01)  # four heavy neurons
    options = {"start": start, "uw_floor": 0.35}
    free = np.diff(steps([8, 12], [grad], start=start), axis=0)[0]
    found = np.diff(steps([8, 12], [grad], **options, uw_floor_per="neuron"), axis=0)[0]
    np.testing.assert_allclose(found[:, 4:], free[:, 4:], atol=1e-6)
    norms = np.linalg.norm(found[:, :4], axis=0)
    np.testing.assert_allclose(norms, 0.35 * 100 * math.sqrt(8), rtol=1e-5)


def test_floor_with_zeros_and_bfloat16():
    zero = np.zeros([4, 6])
    assert not steps([4, 6], [zero], uw_floor=0.35).any()
    np.testing.assert_array_equal(steps([4, 6], [zero], start=2.0, uw_floor=0.35), 2.0)
    layer = paddle.nn.Linear(4, 6)
    layer.to(dtype="bfloat16")
    w = layer.weight
    optimizer = optim.Muon(1.0, [{"params": [w], "role": "hidden_matrix"}], uw_floor=0.5)
    before = w.astype("float32").numpy()
    (w.astype("float32") * 1.0).sum().backward()
    optimizer.step()
    change = np.linalg.norm(w.astype("float32").numpy() - before)
    assert change >= 0.49 * np.linalg.norm(before)
