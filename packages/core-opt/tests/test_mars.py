"""MARS-AdamW: its correction, its clip, and what is left of it without them."""

import numpy as np
import paddle
import pytest
from oarlock.core_opt import optim
from oarlock.core_opt.optim.reference import mars as reference

PATHS = pytest.mark.parametrize("path", ["native", "paddle"])
NO_CLIP = 1e9


def parameter(shape):
    return paddle.nn.Layer().create_parameter(shape)


def train(model, optimizer, grads, backward):
    for grad in grads:
        backward(model, grad)
        optimizer.step()


def values(model):
    return np.concatenate([p.astype("float32").numpy().ravel() for p in model.parameters()])


@PATHS
@pytest.mark.parametrize("options", [{"gamma": 0.0, "max_norm": NO_CLIP}, {"max_norm": NO_CLIP}])
def test_without_correction_and_clip_it_is_adamw(path, options, problem, gradients, backward):
    shared = {"beta1": 0.95, "beta2": 0.99, "weight_decay": 0.1}
    model, twin = problem(), problem()
    mars = optim.MARS(
        0.02, model.parameters(), model.role, optimize_1d=True, path=path, **shared, **options
    )
    adamw = optim.AdamW(0.02, parameters=twin.parameters(), path=path, **shared)
    grads = gradients(model, 10)
    train(model, mars, grads, backward)
    train(twin, adamw, grads, backward)
    difference = np.abs(values(model) - values(twin)).max()
    assert difference < 1e-6 if options.get("gamma") == 0.0 else difference > 1e-3


@PATHS
def test_the_same_gradient_again_needs_no_correction(path, problem, gradients, backward):
    model, twin = problem(), problem()
    built = [
        optim.MARS(0.02, m.parameters(), m.role, gamma=gamma, max_norm=NO_CLIP, path=path)
        for m, gamma in ((model, 0.025), (twin, 0.0))
    ]
    grads = gradients(model, 1) * 5
    train(model, built[0], grads, backward)
    train(twin, built[1], grads, backward)
    np.testing.assert_allclose(values(model), values(twin), atol=1e-6)


@PATHS
@pytest.mark.parametrize("scale,clipped", [(0.05, False), (1.0, True)])
@pytest.mark.parametrize("optimize_1d", [False, True])
def test_equals_reference(path, scale, clipped, optimize_1d, problem, gradients, backward):
    model = problem()
    options = {
        **optim.info("mars").defaults,
        "gamma": 0.05, "weight_decay": 0.1, "optimize_1d": optimize_1d, "adamw_lr_scale": 0.5,
    }  # fmt: skip
    chosen = ("gamma", "weight_decay", "optimize_1d", "adamw_lr_scale")
    optimizer = optim.MARS(
        0.02, model.parameters(), model.role, path=path, **{key: options[key] for key in chosen}
    )
    grads = gradients(model, 20, scale=scale)
    norms = [np.linalg.norm(grad["matrix"]) for grad in grads]
    assert (min(norms) > 1) if clipped else (max(norms) < 0.6)
    expected = {key: p.numpy().astype("float64") for key, p in model.named_parameters()}
    states = {key: {} for key in expected}
    for number, grad in enumerate(grads, 1):
        train(model, optimizer, [grad], backward)
        for key, p in model.named_parameters():
            expected[key] = reference.step(
                expected[key], grad[key].astype("float64"), states[key], step=number, lr=0.02,
                role=model.role[p.name], options=options,
            )  # fmt: skip
    for key, p in model.named_parameters():
        np.testing.assert_allclose(p.numpy(), expected[key], atol=2e-5)


@PATHS
def test_vectors_have_adamws_own_options(path, problem, gradients, backward):
    model, twin = problem(), problem()
    mars = optim.MARS(
        0.02, model.parameters(), model.role, adamw_lr_scale=0.5, adamw_beta1=0.8,
        adamw_beta2=0.9, adamw_weight_decay=0.2, path=path,
    )  # fmt: skip
    adamw = optim.AdamW(
        0.01, beta1=0.8, beta2=0.9, weight_decay=0.2, parameters=twin.parameters(), path=path
    )
    grads = gradients(model, 5)
    train(model, mars, grads, backward)
    train(twin, adamw, grads, backward)
    assert (model.gain.numpy() == twin.gain.numpy()).all()
    assert np.abs(model.table.numpy() - twin.table.numpy()).max() > 1e-3
    keys = {
        key.removeprefix(model.gain.name) for key in mars.state_dict() if model.gain.name in key
    }
    assert keys == {"_moment1_0", "_moment2_0", "_step_0"}


@PATHS
def test_the_clip_makes_large_gradients_alike(path, problem, gradients, backward):
    found = []
    for scale in (8.0, 1024.0):
        model = problem()
        optimizer = optim.MARS(0.02, model.parameters(), model.role, path=path)
        train(model, optimizer, gradients(model, 5, scale=scale), backward)
        state = optimizer.state_dict()
        found.append(model.matrix.numpy())
        previous = state[f"{model.matrix.name}_previous_grad_0"].numpy()
        assert np.linalg.norm(previous) > scale  # what is kept is the gradient itself
        assert np.linalg.norm(state[f"{model.matrix.name}_moment1_0"].numpy()) <= 1
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)


@PATHS
def test_it_clips_and_corrects_what_the_global_clip_leaves(path, problem, gradients, backward):
    """The gradient kept for the next step is that after clipping by global norm."""
    model = problem()
    clip = paddle.nn.ClipGradByGlobalNorm(0.5)
    optimizer = optim.MARS(0.02, model.parameters(), model.role, grad_clip=clip, path=path)
    grads = gradients(model, 2)
    for grad in grads:
        train(model, optimizer, [grad], backward)
        norm = np.sqrt(sum(np.square(g).sum() for g in grad.values()))
        kept = optimizer.state_dict()[f"{model.matrix.name}_previous_grad_0"].numpy()
        np.testing.assert_allclose(kept, grad["matrix"] * (0.5 / norm), rtol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_the_correction_lessens_the_error_of_the_momentum(seed):
    """Along a moving true gradient the momentum lags; the correction takes away a part of that."""
    errors = {}
    for gamma in (0.0, 0.5):
        rng = np.random.default_rng(seed)
        w = parameter([8, 8])
        group = {"params": [w], "role": "hidden_matrix"}
        optimizer = optim.MARS(0.0, [group], gamma=gamma, max_norm=NO_CLIP)
        drift, total = rng.standard_normal([8, 8]), 0.0
        for number in range(300):
            true = drift * np.sin(number / 10)
            noise = 0.01 * rng.standard_normal([8, 8])
            (w * paddle.to_tensor((true + noise).astype("float32"))).sum().backward()
            optimizer.step()
            optimizer.clear_grad()
            momentum = optimizer.state_dict()[f"{w.name}_moment1_0"].numpy()
            total += np.square(momentum - true).sum()
        errors[gamma] = total
    assert errors[0.5] < 0.7 * errors[0.0]


# Refusals ---------------------------------------------------------------------------------------


def test_flat_shards_and_slices_are_refused():
    with pytest.raises(ValueError, match="flattened shard"):
        optim.MARS(0.02, [{"params": [parameter([64])], "role": "hidden_matrix"}])
    slice_ = parameter([8, 8])
    slice_.is_distributed = True
    for role, options, remedy in (
        ("hidden_matrix", {}, "the role vector without optimize_1d"),
        ("hidden_matrix", {"optimize_1d": True}, "the role vector without optimize_1d"),
        ("vector", {"optimize_1d": True}, "pass optimize_1d=False"),
    ):
        with pytest.raises(ValueError, match=f"sharded.*{remedy}, so that AdamW"):
            optim.MARS(0.02, [{"params": [slice_], "role": role}], **options)
    optim.MARS(0.02, [{"params": [slice_], "role": "vector"}])


def test_a_group_may_override_the_options():
    w = parameter([4, 4])
    group = {"params": [w], "role": "conv", "gamma": 0.1, "max_norm": 2.0}
    rule = optim.MARS(0.02, [group])._slots[w.name].rule
    assert (rule.gamma, rule.max_norm, rule.beta1) == (0.1, 2.0, 0.95)
    with pytest.raises(ValueError, match="unknown group key 'gamma'"):
        optim.MARS(0.02, [{"params": [parameter([4])], "role": "vector", "gamma": 0.1}])
