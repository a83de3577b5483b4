"""Shampoo: closed forms of single steps, grafting, and when it begins."""

import numpy as np
import paddle
import pytest
from oarlock.core_opt import optim


def step(grads, shape=None, **options):
    """The update that the last of these gradients makes, per learning rate, from zero weights."""
    options = {"learning_rate": 1.0, "weight_decay": 0.0, **options}
    w = paddle.nn.Layer().create_parameter(list(grads[0].shape))
    optimizer = optim.create("shampoo", [{"params": [w], "role": "hidden_matrix"}], **options)
    for grad in grads:
        w.set_value(np.zeros(grad.shape, "float32"))
        (w * paddle.to_tensor(grad.astype("float32"))).sum().backward()
        optimizer.step()
        optimizer.clear_grad()
    return -w.numpy()


def normal(shape, count=1, seed=0):
    return list(np.random.default_rng(seed).standard_normal([count, *shape]))


@pytest.mark.parametrize("exponent", [0.25, 0.125, 0.4])
@pytest.mark.parametrize("pseudo", [False, True])
def test_rank_one_statistics(exponent, pseudo):
    """sigma u v' becomes sigma (sigma^2 + epsilon)^(-2 exponent) u v'."""
    rng = np.random.default_rng(0)
    u, v = rng.standard_normal(7), rng.standard_normal(5)
    sigma = np.linalg.norm(u) * np.linalg.norm(v)
    epsilon = 0.0 if pseudo else 0.5
    found = step(
        [np.outer(u, v)], grafting=None, exponent=exponent, epsilon=epsilon or 1e-12,
        pseudo_inverse=pseudo,
    )  # fmt: skip
    expected = np.outer(u, v) * (sigma**2 + epsilon) ** (-2 * exponent)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_first_step_is_the_orthogonal_factor():
    """(G G')^(-1/4) G (G' G)^(-1/4), and from one side (G G')^(-1/2) G, as in Muon."""
    for shape in ([6, 6], [4, 9], [9, 4]):
        (grad,) = normal(shape)
        u, _, vt = np.linalg.svd(grad, full_matrices=False)
        for sides in ("both", "smaller"):
            found = step([grad], grafting=None, sides=sides, pseudo_inverse=True)
            np.testing.assert_allclose(found, u @ vt, atol=2e-5)


def test_blocks_are_preconditioned_apart():
    (grad,) = normal([10, 7])
    found = step([grad], grafting=None, block_size=4, pseudo_inverse=True)
    for rows in (slice(0, 4), slice(4, 8), slice(8, 10)):
        for columns in (slice(0, 4), slice(4, 7)):
            u, _, vt = np.linalg.svd(grad[rows, columns], full_matrices=False)
            np.testing.assert_allclose(found[rows, columns], u @ vt, atol=5e-5)


def test_grafting_takes_the_length_of_adams_step_in_each_block():
    grads = normal([10, 7], 12)
    options = {"precondition_frequency": 12, "beta1": 0.9, "beta2": 0.99}
    found = step(grads, block_size=6, **options)
    adam = step(grads, **{**options, "precondition_frequency": 100})  # has not begun yet
    assert np.abs(found - adam).max() > 0.1
    for rows in (slice(0, 6), slice(6, 10)):
        for columns in (slice(0, 6), slice(6, 7)):
            sizes = [np.linalg.norm(update[rows, columns]) for update in (found, adam)]
            assert sizes[0] == pytest.approx(sizes[1], rel=1e-5)


def test_it_is_adam_until_it_begins():
    grads = normal([5, 8], 6)
    w = paddle.nn.Layer().create_parameter([5, 8])
    optimizer = optim.AdamW(1.0, parameters=[w], weight_decay=0.0)
    for grad in grads:
        w.set_value(np.zeros([5, 8], "float32"))
        (w * paddle.to_tensor(grad.astype("float32"))).sum().backward()
        optimizer.step()
        optimizer.clear_grad()
    adam = -w.numpy()
    np.testing.assert_allclose(step(grads), adam, rtol=1e-6)
    np.testing.assert_allclose(step(grads, start_preconditioning_step=7), adam, rtol=1e-6)
    assert np.abs(step(grads, start_preconditioning_step=6) - adam).max() > 0.1


def test_a_late_start_without_grafting_is_refused():
    with pytest.raises(ValueError, match="start_preconditioning_step must be 1 without grafting"):
        step(normal([3, 3]), grafting=None, start_preconditioning_step=5)
