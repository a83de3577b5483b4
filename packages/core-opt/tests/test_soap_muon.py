"""SOAP-Muon: where it is Muon, and that it whitens what Muon orthogonalises."""

import numpy as np
import paddle
from oarlock.core_opt import optim

ROLE = {"role": "hidden_matrix"}


def train(name, start, grads, **options):
    w = paddle.nn.Layer().create_parameter(list(start.shape))
    w.set_value(start.astype("float32"))
    optimizer = optim.create(name, [{"params": [w], **ROLE}], learning_rate=0.02, **options)
    for grad in grads:
        (w * paddle.to_tensor(grad.astype("float32"))).sum().backward()
        optimizer.step()
        optimizer.clear_grad()
    return w.numpy()


def normal(shape, count, seed=0):
    return list(np.random.default_rng(seed).standard_normal([count, *shape]))


def test_first_step_is_muons_and_the_second_is_not():
    start, *grads = normal([8, 12], 3)
    for count, same in ((1, True), (2, False)):
        found, expected = (train(name, start, grads[:count]) for name in ("soap_muon", "muon"))
        assert (found.tobytes() == expected.tobytes()) is same


def test_without_bases_rare_rows_count_as_much_as_others():
    """In its own coordinates it is Adam's sign-like direction that is orthogonalised."""
    start = np.zeros([6, 6])
    grads = normal([6, 6], 8)
    scales = np.geomspace(1, 1e-3, 6)[:, None]
    options = {"max_precond_dim": 0, "epsilon": 1e-12}
    found = train("soap_muon", start, [np.zeros([6, 6]), *grads], **options)
    scaled = train("soap_muon", start, [np.zeros([6, 6]), *(g * scales for g in grads)], **options)
    np.testing.assert_allclose(scaled, found, atol=2e-4)  # each element over its own size


def test_updates_are_orthogonal_within_the_band_of_newton_schulz():
    start, *grads = normal([16, 24], 12)
    before = train("soap_muon", start, grads[:-1])
    after = train("soap_muon", start, grads)
    sigma = np.linalg.svd((before - after) / 0.02 / np.sqrt(24 / 16), compute_uv=False)
    assert 0.3 < sigma.min() and sigma.max() < 1.2


def test_turning_the_coordinates_turns_the_steps():
    rng = np.random.default_rng(3)
    u, v = (np.linalg.qr(rng.standard_normal([8, 8]))[0] for _ in range(2))
    start, *grads = normal([8, 8], 12)
    found = train("soap_muon", start, grads, coefficients="classic", ns_steps=20)
    turned = train(
        "soap_muon", u @ start @ v, [u @ grad @ v for grad in grads],
        coefficients="classic", ns_steps=20,
    )  # fmt: skip
    np.testing.assert_allclose(u.T @ turned @ v.T, found, atol=1e-3)
