"""One suite that every mask scheduler must pass, and what each is known for."""

import numpy as np
import paddle
import pytest
from oarlock.core_opt import optim, sparse
from oarlock.core_opt.sparse import (
    SET,
    SSTE,
    DenseTail,
    GradualPruning,
    MaskedLinear,
    MaskScheduler,
    RigL,
)
from paddle import nn

STEPS = 40
COMMON = {"density": 0.25, "total_steps": STEPS, "every": 5}


def static(model, **o):
    return MaskScheduler(model, **COMMON | o)


def set_(model, **o):
    return SET(model, **COMMON | o)


def rigl(model, **o):
    return RigL(model, **COMMON | o)


def gradual(model, **o):
    return GradualPruning(model, **COMMON | o)


def sste(model, **o):
    return SSTE(model, total_steps=STEPS, **o)


def tail(model, **o):
    return DenseTail(rigl(model, **o), share=0.2)


def sste_tail(model, **o):
    return DenseTail(sste(model, **o), share=0.2)


#: builder, blocks, share kept before the tail
MEMBERS = {
    "static": (static, None, 0.25),
    "static-block": (static, (4, 4), 0.25),
    "set": (set_, None, 0.25),
    "set-block": (set_, (4, 4), 0.25),
    "rigl": (rigl, None, 0.25),
    "rigl-block": (rigl, (4, 4), 0.25),
    "gradual": (gradual, None, 0.25),
    "gradual-block": (gradual, (4, 4), 0.25),
    "s-ste": (sste, None, 0.5),
    "rigl-tail": (tail, (4, 4), 0.25),
    "s-ste-tail": (sste_tail, None, 0.5),
}
each_member = pytest.mark.parametrize("name", MEMBERS)
each_path = pytest.mark.parametrize("path", ["native", "paddle"])


class Net(nn.Layer):
    def __init__(self, block, path):
        super().__init__()
        paddle.seed(0)
        self.inner = MaskedLinear(16, 32, block=block, path=path)
        self.outer = MaskedLinear(32, 8, block=block, path=path)

    def forward(self, x):
        return self.outer(nn.functional.relu(self.inner(x)))


def problem(seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((64, 16)).astype("float32")
    target = np.tanh(x @ rng.standard_normal((16, 8)).astype("float32") / 4)
    return paddle.to_tensor(x), paddle.to_tensor(target.astype("float32"))


class Training:
    """A model, its scheduler and its optimiser, for one of the members."""

    def __init__(self, name, path="native", seed=0):
        build, block, self.kept = MEMBERS[name]
        with paddle.utils.unique_name.guard():
            self.model = Net(block, path)
        self.scheduler = build(self.model, seed=seed)
        self.optimizer = optim.AdamW(learning_rate=0.02, parameters=self.model.parameters())
        self.x, self.target = problem()

    def loss(self):
        return paddle.square(self.model(self.x) - self.target).mean()

    def steps(self, count, look=None):
        losses = []
        for _ in range(count):
            loss = self.loss()
            loss.backward()
            self.scheduler.step()
            if look is not None:
                look(self)
            self.optimizer.step()
            self.optimizer.clear_grad()
            losses.append(loss.item())
        return losses


@each_member
@each_path
def test_a_member_learns(name, path):
    losses = Training(name, path).steps(STEPS)
    assert np.isfinite(losses).all() and np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])


@each_member
def test_a_member_keeps_what_it_promises(name):
    training = Training(name)
    training.steps(STEPS * 3 // 4 + 1)
    found = training.scheduler.densities()
    assert found == pytest.approx([training.kept] * 2, abs=0.01)
    training.steps(STEPS)
    last = 1.0 if name.endswith("tail") else training.kept
    assert training.scheduler.densities() == pytest.approx([last] * 2, abs=0.01)


# S-STE's gradient goes straight through to all weights, which is its point.
@pytest.mark.parametrize("name", [name for name in MEMBERS if "s-ste" not in name])
def test_gradients_reach_only_what_is_kept(name):
    def look(training):
        for layer in training.scheduler.layers:
            # RigL's are dense before a change only, and masked when it is done.
            outside = ~layer.element_mask().numpy()
            assert not layer.weight.grad.numpy()[outside].any()

    Training(name).steps(STEPS * 3 // 4, look)


@each_member
def test_a_member_is_the_same_on_both_paths(name):
    masks = []
    for path in ("native", "paddle"):
        training = Training(name, path)
        training.steps(12)
        masks.append([layer.mask.numpy() for layer in training.scheduler.layers])
    assert all(np.array_equal(a, b) for a, b in zip(*masks))


@each_member
def test_a_member_repeats_itself_and_listens_to_its_seed(name):
    first, second = Training(name), Training(name)
    assert first.steps(12) == second.steps(12)
    if name in ("static", "set", "rigl"):
        assert first.steps(3) != Training(name, seed=1).steps(15)[12:]


@each_member
@pytest.mark.parametrize("at", [12, STEPS - 4])
def test_a_member_continues_bit_for_bit(name, at):
    whole, half, rest = Training(name), Training(name), Training(name, seed=0)
    wanted = whole.steps(at + 8)
    half.steps(at)
    saved = half.model.state_dict(), half.optimizer.state_dict(), half.scheduler.state_dict()
    rest.model.set_state_dict({k: v.clone() for k, v in saved[0].items()})
    rest.optimizer.set_state_dict(saved[1])
    rest.scheduler.set_state_dict(saved[2])
    assert rest.steps(8) == wanted[at:]


@pytest.mark.parametrize("name", ["set", "set-block", "rigl", "rigl-block"])
def test_dynamic_members_move_masks_until_the_end_of_their_time(name):
    training = Training(name)
    seen = []
    for _ in range(STEPS):
        training.steps(1)
        seen.append(
            np.concatenate([one.mask.numpy().reshape(-1) for one in training.scheduler.layers])
        )
    changed = [i for i in range(1, STEPS) if not np.array_equal(seen[i - 1], seen[i])]
    assert changed and set(changed) <= set(range(5, 30, 5))
    assert len({mask.sum() for mask in seen}) == 1


def test_rigl_grows_the_largest_gradients_and_drops_the_smallest_weights():
    training = Training("rigl")
    training.steps(5)
    loss = training.loss()
    loss.backward()
    layer = training.scheduler.layers[0]
    weight, grad = layer.weight.numpy().copy(), layer.weight.grad.numpy().copy()
    before = layer.mask.numpy()
    assert grad[~before].any()  # this pass has gradients everywhere
    training.scheduler.step()
    after = layer.mask.numpy()
    grown, dropped = after & ~before, before & ~after
    assert grown.sum() == dropped.sum() > 0
    never = ~before & ~after
    assert np.abs(grad[grown]).min() >= np.abs(grad[never]).max()
    assert np.abs(weight[dropped]).max() <= np.abs(weight[before & after]).min()
    assert not layer.weight.numpy()[grown].any()  # what grows begins at zero


def test_gradual_pruning_follows_its_cubic():
    training = Training("gradual")
    found = []
    for _ in range(STEPS):
        training.steps(1)
        found.append(training.scheduler.densities()[0])
    first, last = 4, 30
    for step in range(first, last + 1, 5):
        left = 1 - (step - first) / (last - first)
        assert found[step] == pytest.approx(1 - 0.75 * (1 - left**3), abs=0.01)
    assert found[3] == 1.0 and found[30] == pytest.approx(0.25, abs=0.01)
    assert all(b <= a for a, b in zip(found, found[1:]))


def test_s_ste_is_two_of_four_and_continuous():
    training = Training("s-ste")
    layer = training.scheduler.layers[0]
    groups = layer.projection(layer.weight).numpy().reshape(4, 4, 32)
    assert ((groups != 0).sum(1) == 2).all()
    # Where two weights change places the projection does not jump.
    weight = paddle.to_tensor([[0.5], [0.3], [0.1], [1.0]])
    values = []
    for shift in np.linspace(-1e-3, 1e-3, 21):
        weight[1] = 0.5 + shift
        values.append(layer.projection(weight).numpy()[:, 0])
    assert np.abs(np.diff(values, axis=0)).max() < 1e-2
    training.scheduler.finish()
    assert layer.projection is None and layer.density == 0.5
    np.testing.assert_array_equal(layer.weight.numpy().reshape(4, 4, 32), groups)


def test_the_tail_is_dense_and_begins_where_it_should():
    training = Training("rigl-tail")
    training.steps(31)
    assert not training.scheduler.is_dense
    before = training.model.inner.weight.numpy().copy()
    training.steps(1)
    assert training.scheduler.is_dense and training.model.inner.density == 1.0
    training.steps(5)
    now = training.model.inner.weight.numpy()
    assert (now[before == 0] != 0).mean() > 0.5


BAD = [
    (lambda m: static(m, density=0.0), "density must lie in"),
    (lambda m: static(m, density=1.5), "density must lie in"),
    (lambda m: static(m, total_steps=0), "total_steps must be an integer >= 1"),
    (lambda m: static(m, every=0), "every must be an integer >= 1"),
    (lambda m: set_(m, drop=1.0), "drop must lie in"),
    (lambda m: gradual(m, begin=0.8), "begin must be below end"),
    (lambda m: sste(m, density=0.25), "density must be 0.5"),
    (lambda m: sste(Net((4, 4), None)), "layers must have no blocks"),
    (lambda m: DenseTail(static(m), share=1.0), "share must lie in"),
    (lambda m: DenseTail(m), "scheduler must be a mask scheduler"),
    (lambda m: static(nn.Linear(4, 4)), "layers must be a model with MaskedLinear"),
    (lambda m: static(m).set_state_dict({}), "state must be a scheduler's state_dict"),
    (lambda m: sste(m).set_state_dict({"done": 1}), "must have one number for each of 2 layers"),
]


@pytest.mark.parametrize("build, message", BAD)
def test_bad_arguments_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build(Net(None, None))


def test_rigl_without_a_gradient_says_so():
    training = Training("rigl")
    training.steps(5)
    with pytest.raises(ValueError, match="call step.. after backward"):
        training.scheduler.step()


def test_a_trained_model_is_frozen_and_saved(tmp_path):
    training = Training("rigl-block")
    training.steps(STEPS)
    wanted = training.model(training.x).numpy()
    sparse.freeze_masks(training.model)
    np.testing.assert_allclose(training.model(training.x).numpy(), wanted, atol=1e-5)
    sparse.export(tmp_path / "net", training.model)
    for parameter in training.model.parameters():
        if len(parameter.shape) == 3:
            parameter.set_value(parameter * 0)
    sparse.restore(tmp_path / "net", training.model)
    np.testing.assert_allclose(training.model(training.x).numpy(), wanted, atol=1e-5)
