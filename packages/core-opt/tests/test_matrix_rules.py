"""What the optimisers of matrices share: layouts, options, refusals, state between refreshes."""

import math

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oarlock.core_opt import optim
from oarlock.core_opt.optim import _blocks, _roots
from oarlock.core_opt.optim.reference import STEPS

NAMES = ("muon", "normuon", "soap", "soap_muon", "shampoo")
TITLES = {"normuon": "Muon", "soap": "SOAP", "soap_muon": "SOAP-Muon"}
SHAPES = [
    ("hidden_matrix", [12, 20]),
    ("hidden_matrix", [20, 12]),
    ("hidden_matrix", [1, 7]),
    ("hidden_matrix", [9, 1]),
    ("experts", [3, 8, 12]),
    ("conv", [6, 4, 3, 3]),
    ("conv", [12, 2, 3]),
]
OPTIONS = {
    "muon": [
        {"variance": "neuron", "update_scale": "rms"},
        {"uw_floor": 0.35},
        {"uw_floor": 0.35, "uw_floor_per": "neuron"},
    ],
    "normuon": [{}, {"beta2": 0.8, "uw_floor": 0.5, "uw_floor_per": "neuron"}],
    "soap": [
        {"precondition_frequency": 3},
        {"precondition_frequency": 1, "shampoo_beta": 0.8, "beta1": 0.9},
        {"precondition_frequency": 2, "max_precond_dim": 12},
        {"max_precond_dim": 0},
    ],
    "soap_muon": [
        {},
        {"precondition_frequency": 3, "nesterov": False, "variance": "neuron"},
        {"max_precond_dim": 12, "uw_floor": 0.35, "update_scale": "rms"},
    ],
    # Float32 does not hold the eigenvalues that singular statistics would need below 1e-7.
    "shampoo": [
        {"precondition_frequency": 3, "epsilon": 1e-3},
        {"precondition_frequency": 2, "epsilon": 1e-3, "block_size": 5},
        {"precondition_frequency": 4, "start_preconditioning_step": 6, "sides": "smaller"},
        {"precondition_frequency": 3, "grafting": None, "pseudo_inverse": True, "exponent": 0.2},
        {"precondition_frequency": 3, "pseudo_inverse": True, "block_size": 8, "sides": "smaller"},
    ],
}
EVERY = pytest.mark.parametrize(
    "name,options", [(name, options) for name in NAMES for options in OPTIONS[name]]
)


def parameter(shape, seed=0):
    w = paddle.nn.Layer().create_parameter(shape)
    w.set_value(np.random.default_rng(seed).standard_normal(shape).astype("float32"))
    return w


def take(optimizer, parameters, grads):
    for w, grad in zip(parameters, grads):
        (w.astype("float32") * paddle.to_tensor(grad)).sum().backward()
    optimizer.step()
    optimizer.clear_grad()


@EVERY
@pytest.mark.parametrize("path", ["native", "paddle"])
def test_every_layout_equals_the_reference(name, options, path):
    rng = np.random.default_rng(1)
    weights = [parameter(shape, seed) for seed, (_, shape) in enumerate(SHAPES)]
    groups = [{"params": [w], "role": role} for w, (role, _) in zip(weights, SHAPES)]
    options = {"weight_decay": 0.1, **options}
    optimizer = optim.create(name, groups, learning_rate=0.02, path=path, **options)
    options = {**optim.info(name).defaults, **options}
    expected = [w.numpy().astype("float64") for w in weights]
    states = [{} for _ in weights]
    for step in range(1, 9):
        grads = [rng.standard_normal(w.shape).astype("float32") for w in weights]
        for index, (role, _) in enumerate(SHAPES):
            expected[index] = STEPS[name](
                expected[index], grads[index].astype("float64"), states[index],
                step=step, lr=0.02, role=role, options=options,
            )  # fmt: skip
        take(optimizer, weights, grads)
    for w, value in zip(weights, expected):
        # A column's statistics are singular, and processors round their eigenvectors differently.
        singular = name == "soap_muon" and min(w.shape) == 1
        atol = 2e-4 if singular else 2e-5
        np.testing.assert_allclose(w.numpy(), value, atol=atol, err_msg=str(w.shape))


@EVERY
def test_save_and_load_between_refreshes(name, options, tmp_path):
    def start():
        with paddle.utils.unique_name.guard():
            weights = [parameter(shape) for _, shape in SHAPES]
        groups = [{"params": [w], "role": role} for w, (role, _) in zip(weights, SHAPES)]
        return weights, optim.create(name, groups, learning_rate=0.02, **options)

    rng = np.random.default_rng(1)
    grads = [[rng.standard_normal(s).astype("float32") for _, s in SHAPES] for _ in range(12)]
    first, second = start(), start()
    for step in grads[:5]:
        take(first[1], first[0], step)
    paddle.save(first[1].state_dict(), str(tmp_path / "optimizer.pdopt"))
    for w, other in zip(first[0], second[0]):
        other.set_value(w)
    second[1].set_state_dict(paddle.load(str(tmp_path / "optimizer.pdopt")))
    for step in grads[5:]:
        for weights, optimizer in (first, second):
            take(optimizer, weights, step)
    for w, other in zip(first[0], second[0]):
        assert w.numpy().tobytes() == other.numpy().tobytes()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("path", ["native", "paddle"])
def test_matrices_of_one_shape_do_not_mix(name, path):
    """Matrices that share a stack end as they do alone."""
    rng = np.random.default_rng(0)
    together = [parameter([6, 10], seed) for seed in range(3)]
    alone = parameter([6, 10], 1)
    first = optim.create(name, [{"params": together, "role": "hidden_matrix"}], path=path)
    second = optim.create(name, [{"params": [alone], "role": "hidden_matrix"}], path=path)
    for _ in range(12):
        grads = [rng.standard_normal([6, 10]).astype("float32") for _ in together]
        take(first, together, grads)
        take(second, [alone], grads[1:2])
    np.testing.assert_allclose(together[1].numpy(), alone.numpy(), atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
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
def test_wrong_shapes_are_refused(name, role, shape, message):
    title = TITLES.get(name, name.capitalize())
    with pytest.raises(ValueError, match=f"{title} needs .*{message}"):
        optim.create(name, [{"params": [parameter(shape)], "role": role}])


@pytest.mark.parametrize("name", NAMES)
def test_shards_are_refused(name):
    whole = parameter([8, 8])
    whole.is_distributed = True  # as tensor-parallel layers mark their slices
    with pytest.raises(ValueError, match="sharded"):
        optim.create(name, [{"params": [whole], "role": "hidden_matrix"}])
    optim.create(name, [{"params": [whole], "role": "embedding"}])
    whole = parameter([8, 8])
    optimizer = optim.create(name, [{"params": [whole], "role": "hidden_matrix"}])
    flat = paddle.zeros([64])
    flat.name = whole.name  # sharded optimisers hand over slices under the parameter's own name
    with pytest.raises(ValueError, match="flattened shard"):
        optimizer._apply_optimize(None, None, [(flat, paddle.ones([64]))])


# Roots, bases and blocks --------------------------------------------------------------------------


def positive(eigenvalues, count=1, seed=0):
    """Symmetric matrices with these eigenvalues, and their eigenvectors."""
    rng = np.random.default_rng(seed)
    size = len(eigenvalues)
    vectors = np.linalg.qr(rng.standard_normal([count, size, size]))[0]
    return vectors * np.asarray(eigenvalues) @ vectors.transpose(0, 2, 1), vectors


@pytest.mark.parametrize("exponent", [0.25, 0.5, 1.0])
def test_inverse_roots(exponent):
    values = np.geomspace(1, 1e-3, 9)
    stack, vectors = positive(values, 3)
    expected = vectors * values**-exponent @ vectors.transpose(0, 2, 1)
    for pseudo in (False, True):
        found = _roots.inverse_root(paddle.to_tensor(stack), exponent, epsilon=1e-12, pseudo=pseudo)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6, atol=1e-7)


def test_inverse_roots_where_the_matrix_is_zero():
    values = np.array([4.0, 1.0, 0.0, 0.0])
    stack, vectors = positive(values, 2)
    stack = paddle.to_tensor(stack.astype("float32"))  # eigenvalues of rounding, some below zero
    found = _roots.inverse_root(stack, 0.5, epsilon=1e-12, pseudo=True).numpy()
    expected = vectors * np.array([0.5, 1, 0, 0]) @ vectors.transpose(0, 2, 1)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    found = _roots.inverse_root(stack, 0.5, epsilon=1e-2, pseudo=False).numpy()
    expected = vectors * (values + 1e-2) ** -0.5 @ vectors.transpose(0, 2, 1)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    zero = _roots.inverse_root(paddle.zeros([1, 3, 3]), 0.25, epsilon=1e-4, pseudo=True)
    assert not zero.numpy().any()


def test_eigenbasis_diagonalises_and_falls():
    stack, vectors = positive(np.geomspace(1, 1e-2, 8), 3)
    found = _roots.eigenbasis(paddle.to_tensor(stack)).numpy()
    assert np.abs(found.transpose(0, 2, 1) @ vectors).max(-1).min() > 1 - 1e-9
    diagonal = found.transpose(0, 2, 1) @ stack @ found
    np.testing.assert_allclose(diagonal, [np.diag(np.geomspace(1, 1e-2, 8))] * 3, atol=1e-12)


def test_eigenbasis_of_a_singular_matrix_does_not_follow_its_rounding():
    stack, _ = positive([3.0, 2.0, 1.0, 0, 0, 0, 0])
    found = []
    for seed in range(4):
        noise = np.random.default_rng(seed).standard_normal([1, 7, 7]) * 1e-8
        found.append(
            _roots.eigenbasis(paddle.to_tensor(stack + noise + noise.transpose(0, 2, 1))).numpy()
        )
    for basis in found[1:]:
        np.testing.assert_allclose(np.abs((basis * found[0]).sum(1)), 1, atol=1e-6)
    identity = _roots.eigenbasis(paddle.zeros([2, 5, 5])).numpy()
    np.testing.assert_array_equal(np.abs(identity), [np.eye(5)] * 2)


def test_power_iteration_converges_to_the_eigenbasis():
    values = np.geomspace(1, 1e-2, 6)
    stack, vectors = positive(values, 2)
    stack = paddle.to_tensor(stack)
    basis = _roots.eigenbasis(paddle.to_tensor(positive(values, 2, seed=1)[0]))
    overlaps = []
    for _ in range(30):
        basis, _ = _roots.refreshed(stack, basis)
        overlaps.append(np.abs(basis.numpy().transpose(0, 2, 1) @ vectors).max(-1).min())
    assert overlaps[0] < 0.9 and overlaps[-1] > 1 - 1e-9


def test_power_iteration_keeps_directions_where_the_matrix_is_zero():
    stack, vectors = positive([3.0, 2.0, 0.0, 0.0, 0.0])
    basis = np.concatenate([vectors[..., 3:], vectors[..., :3]], axis=-1)  # zeros come first
    found, order = _roots.refreshed(
        paddle.to_tensor(stack.astype("float32")), paddle.to_tensor(basis.astype("float32"))
    )
    assert order.numpy().tolist() == [[2, 3, 0, 1, 4]]
    overlap = np.abs(found.numpy().transpose(0, 2, 1) @ basis[..., order.numpy()[0]])
    np.testing.assert_allclose(overlap, [np.eye(5)], atol=1e-6)
    still, order = _roots.refreshed(paddle.zeros([1, 5, 5]), found)
    np.testing.assert_allclose(np.abs((still * found).sum(1).numpy()), 1, atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(rows=st.integers(1, 30), columns=st.integers(1, 30), size=st.integers(1, 40))
def test_blocks_cover_a_matrix_once(rows, columns, size):
    stack = np.arange(2 * rows * columns, dtype="float32").reshape(2, rows, columns)
    bands = _blocks.tilings(rows, columns, size)
    tilings = _blocks.flat(bands)
    assert len(tilings) <= 4
    assert sum(t.down * t.across for t in tilings) == math.ceil(rows / size) * math.ceil(
        columns / size
    )
    blocks = [tiling.cut(paddle.to_tensor(stack)) for tiling in tilings]
    assert all(max(block.shape[1:]) <= size for block in blocks)
    np.testing.assert_array_equal(_blocks.joined(bands, blocks).numpy(), stack)
