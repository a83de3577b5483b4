"""AdamW beside Paddle's own, and state carried over from it."""

import numpy as np
import paddle
import pytest
from oarlock.core_opt import optim


def values(model):
    return np.concatenate([p.astype("float32").numpy().ravel() for p in model.parameters()])


@pytest.mark.parametrize("path", ["native", "paddle"])
def test_equals_paddles_adamw(path, problem, gradients, backward):
    model, twin = problem(), problem()
    ours = optim.AdamW(0.02, parameters=model.parameters(), weight_decay=0.1, path=path)
    theirs = paddle.optimizer.AdamW(0.02, parameters=twin.parameters(), weight_decay=0.1)
    for grad in gradients(model, 20):
        for network, optimizer in ((model, ours), (twin, theirs)):
            backward(network, grad)
            optimizer.step()
    np.testing.assert_allclose(values(model), values(twin), atol=2e-6)


@pytest.mark.parametrize("path", ["native", "paddle"])
@pytest.mark.parametrize("steps,beta2", [(1, 0.999), (7, 0.95), (3, 0.0)])
def test_takes_over_the_state_of_paddles_adamw(
    path, steps, beta2, problem, gradients, backward, tmp_path
):
    model, twin = problem(), problem()
    options = {"learning_rate": 0.02, "beta2": beta2}
    with paddle.utils.unique_name.guard():
        theirs = paddle.optimizer.AdamW(parameters=twin.parameters(), **options)
        grads = gradients(model, steps + 5)
        for grad in grads[:steps]:
            backward(twin, grad)
            theirs.step()
    paddle.save(theirs.state_dict(), str(tmp_path / "theirs.pdopt"))
    model.set_state_dict(twin.state_dict())
    ours = optim.AdamW(parameters=model.parameters(), path=path, **options)
    if beta2 == 0.0:
        with pytest.raises(ValueError, match="does not tell"):
            ours.set_state_dict(paddle.load(str(tmp_path / "theirs.pdopt")))
        return
    ours.set_state_dict(paddle.load(str(tmp_path / "theirs.pdopt")))
    assert set(slot.step for slot in ours._slots.values()) == {steps}
    for grad in grads[steps:]:
        for network, optimizer in ((model, ours), (twin, theirs)):
            backward(network, grad)
            optimizer.step()
    np.testing.assert_allclose(values(model), values(twin), atol=2e-6)


def test_takes_over_master_weights(problem):
    """Paddle's CPU kernel takes no low precision, but its names are made all the same."""
    model = problem("bfloat16")
    options = {"learning_rate": 0.02, "multi_precision": True}
    with paddle.utils.unique_name.guard():
        theirs = paddle.optimizer.AdamW(parameters=model.parameters(), **options)
        theirs._create_accumulators(
            paddle.static.default_main_program().global_block(), model.parameters()
        )
    state = theirs.state_dict()
    for key, tensor in state.items():
        if "moment" in key:
            tensor.set_value(paddle.rand(tensor.shape))
    ours = optim.AdamW(parameters=model.parameters(), **options)
    ours.set_state_dict(state)
    taken = ours.state_dict()
    for parameter in model.parameters():
        name = parameter.name
        master = state["master_weights"][name]
        assert (taken["master_weights"][name].numpy() == master.numpy()).all()
        for moment in ("moment1_0", "moment2_0"):
            expected = state[f"{master.name}_{moment}"].numpy()
            assert (taken[f"{name}_{moment}"].numpy() == expected).all()
