"""The suite that every modifier passes."""

import numpy as np
import paddle
import pytest
from oarlock.core_opt import compress
from oarlock.core_opt.compress import registry

RTN = compress.RTN(bits=4)
WRITERS = ("*.mix", "*.down")  # mix reads the hidden state as well
# A recipe for each kind that works on the small model; transforms and residuals need a rounding.
RECIPES = {
    "awq": (compress.AWQ(bits=4), RTN),
    "distillation": (RTN, compress.Distillation(steps=6, save_every=2)),
    "gptq": (compress.GPTQ(bits=4),),
    "hadamard": (compress.Hadamard(), RTN),
    "low_rank": (RTN, compress.LowRank(rank=2)),
    "magnitude": (compress.Magnitude(),),
    "qat": (compress.QAT(bits=4, steps=6, save_every=2),),
    "remove_blocks": (compress.RemoveBlocks(count=1),),
    "remove_heads": (compress.RemoveHeads(heads={"*.mix": 4}, share=0.25),),
    "remove_neurons": (compress.RemoveNeurons(share=0.25),),
    "rotate_residual": (compress.RotateResidual(writers=WRITERS), RTN),
    "rtn": (RTN,),
    "smoothquant": (compress.SmoothQuant(), compress.RTN(bits=8, activation_bits=8)),
    "sparsegpt": (compress.SparseGPT(pattern="2:4"),),
    "wanda": (compress.Wanda(),),
}
KINDS = registry.kinds("modifier")


def recipe(kind, **options):
    return compress.Recipe(modifiers=RECIPES[kind], **options)


def build(toy, kind, **options):
    return (toy.RMSModel if kind == "rotate_residual" else toy.Model)(**options)


def test_every_kind_is_tested():
    assert set(RECIPES) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_recipe_round_trip(kind):
    one = recipe(kind, pipeline="basic", max_batches=3)
    assert compress.Recipe.from_yaml(one.to_yaml()) == one
    assert compress.Recipe.from_dict(one.to_dict()) == one


@pytest.mark.parametrize("kind", KINDS)
def test_compresses_and_still_computes(kind, toy):
    model = build(toy, kind)
    with paddle.no_grad():
        before = float(toy.loss(model, toy.data.batches[0]))
    result = compress.oneshot(model, recipe(kind), toy.data)
    with paddle.no_grad():
        after = float(toy.loss(model, toy.data.batches[0]))
    assert np.isfinite(after)
    limit = 3.0 if kind in ("magnitude", "wanda", "sparsegpt", "remove_blocks") else 1.0
    assert abs(after - before) < limit
    assert result.layers or result.modifiers
    assert model.training, "the mode is as before"
    assert all(layer.training for layer in model.sublayers())


@pytest.mark.parametrize("kind", KINDS)
def test_same_bits_again_and_from_yaml(kind, toy):
    models = [build(toy, kind), build(toy, kind)]
    compress.oneshot(models[0], recipe(kind), toy.data)
    compress.oneshot(models[1], compress.Recipe.from_yaml(recipe(kind).to_yaml()), toy.data)
    assert toy.bits_of(models[0]) == toy.bits_of(models[1])


class Stop(Exception):
    pass


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("after", [1, 4])
def test_resumes_with_the_same_bits(kind, after, tmp_path, toy):
    whole = build(toy, kind)
    compress.oneshot(whole, recipe(kind), toy.data)
    calls = 0

    def interrupt(done, total, text):
        nonlocal calls
        calls += 1
        if calls == after:
            raise Stop

    model = build(toy, kind)
    before = toy.bits_of(model)
    try:
        compress.oneshot(
            model, recipe(kind), toy.data, state=tmp_path / "state", on_progress=interrupt
        )
    except Stop:
        assert toy.bits_of(model) == before, "an interrupted model is as before"
    model = build(toy, kind)
    compress.oneshot(model, recipe(kind), toy.data, state=tmp_path / "state")
    assert toy.bits_of(model) == toy.bits_of(whole)
    model = build(toy, kind)  # all of it from the folder
    compress.oneshot(model, recipe(kind), toy.data, state=tmp_path / "state")
    assert toy.bits_of(model) == toy.bits_of(whole)


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_with_the_same_bits(kind, tmp_path, toy):
    model = build(toy, kind)
    compress.oneshot(model, recipe(kind), toy.data)
    compress.save(model, tmp_path / "model.npz")
    fresh = compress.load(build(toy, kind, seed=5), tmp_path / "model.npz")
    assert toy.bits_of(fresh) == toy.bits_of(model)
    tokens = toy.data.batches[0][0]
    model.eval(), fresh.eval()
    np.testing.assert_array_equal(fresh(tokens).numpy(), model(tokens).numpy())


@pytest.mark.parametrize("kind", KINDS)
def test_keeps_the_type_of_the_model(kind, toy, tmp_path):
    """Float64 stands for all types but float32; stock Paddle computes no other on the CPU."""
    tokens = toy.batches[0][0]
    model, single = build(toy, kind).to(dtype="float64").eval(), build(toy, kind).eval()
    compress.oneshot(model, recipe(kind), toy.data)
    compress.oneshot(single, recipe(kind), toy.data)
    assert model(tokens).dtype == paddle.float64
    if not any(hasattr(modifier, "steps") for modifier in RECIPES[kind]):  # training drifts apart
        scale = float(single(tokens).abs().max())
        error = np.abs(model(tokens).numpy() - single(tokens).numpy()).max()
        assert error < 0.2 * scale, "ties may be broken otherwise, in a few weights"
    held = {name: t.dtype for name, t in model.state_dict().items()}
    whole = [name for name in held if "codes" in name or name.endswith(("mask", "zero"))]
    assert all(held[name] == paddle.uint8 for name in whole)
    single.to(dtype="float64")  # after compression: codes and masks stay whole numbers
    assert {name: t.dtype for name, t in single.state_dict().items()}.items() >= {
        (name, paddle.uint8) for name in whole
    }
    assert single(tokens).dtype == paddle.float64
    compress.save(model, tmp_path / "model.npz")
    fresh = compress.load(build(toy, kind).to(dtype="float64"), tmp_path / "model.npz")
    assert toy.bits_of(fresh) == toy.bits_of(model)


@pytest.mark.parametrize("kind", KINDS)
def test_nan_in_the_data_leaves_the_model_as_it_was(kind, toy):
    model = build(toy, kind)
    before, layers = toy.bits_of(model), dict(model.named_sublayers())

    def poisoned(forward):
        def run(model, batch):
            hook = model.blocks[1].register_forward_pre_hook(
                lambda layer, inputs: (inputs[0] * float("nan"), inputs[1])
            )
            try:
                return forward(model, batch)
            finally:
                hook.remove()

        return run

    data = compress.Data(
        batches=toy.data.batches, loss=poisoned(toy.loss), outputs=poisoned(toy.outputs)
    )
    with pytest.raises(ValueError, match="NaN|nan"):
        compress.oneshot(model, recipe(kind), data)
    assert toy.bits_of(model) == before
    assert dict(model.named_sublayers()) == layers


@pytest.mark.parametrize("kind", KINDS)
def test_empty_data_is_refused(kind, toy):
    model = build(toy, kind)
    before = toy.bits_of(model)
    data = compress.Data(batches=[], loss=toy.loss, outputs=toy.outputs)
    with pytest.raises(ValueError, match="empty"):
        compress.oneshot(model, recipe(kind), data)
    with pytest.raises(ValueError, match="iterator"):
        data = compress.Data(batches=iter([]), loss=toy.loss, outputs=toy.outputs)
        compress.oneshot(model, recipe(kind), data)
    assert toy.bits_of(model) == before


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_field_is_named(kind):
    values = recipe(kind).to_dict()
    values["modifiers"][-1]["bitz"] = 3
    with pytest.raises(ValueError, match="bitz"):
        compress.Recipe.from_dict(values)


def test_layers_of_transforms_and_roundings_compose(toy):
    """Every transform with every mitigation: each pair computes what its weight says."""
    for transform in (None, compress.SmoothQuant(), compress.AWQ(), compress.Hadamard()):
        for rounding in (compress.RTN(bits=4), compress.GPTQ(bits=4, act_order=True)):
            for residual in (None, compress.LowRank(rank=2)):
                parts = [part for part in (transform, rounding, residual) if part is not None]
                model = toy.Model()
                compress.oneshot(model, compress.Recipe(modifiers=tuple(parts)), toy.data)
                layer = model.blocks[0].up
                x = np.random.default_rng(0).standard_normal((5, 16)).astype(np.float32)
                expected = x @ layer.effective_weight() + layer.bias.numpy()
                found = layer(paddle.to_tensor(x)).numpy()
                np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_rotation_of_the_residual_leaves_the_function_as_it_is(toy):
    tokens = toy.batches[0][0]
    plain, turned = toy.RMSModel().eval(), toy.RMSModel().eval()
    one = compress.RotateResidual(writers=WRITERS)
    compress.oneshot(turned, compress.Recipe(modifiers=(one,)), toy.data)
    assert not np.allclose(turned.head.weight.numpy(), plain.head.weight.numpy())
    scale = float(plain(tokens).abs().max())
    np.testing.assert_allclose(turned(tokens).numpy(), plain(tokens).numpy(), atol=1e-5 * scale)


def test_rotation_of_the_residual_refuses_layer_norms(toy):
    model = toy.Model()
    before = toy.bits_of(model)
    with pytest.raises(ValueError, match="use hadamard instead"):
        compress.oneshot(model, compress.Recipe(modifiers=(compress.RotateResidual(),)), toy.data)
    assert toy.bits_of(model) == before


def test_training_is_undone_when_a_later_modifier_fails(toy):
    model = toy.Model()
    before = toy.bits_of(model)
    parts = (compress.Distillation(steps=2, learning_rate=0.1), compress.RTN(group=7))
    with pytest.raises(ValueError, match="group must divide"):
        compress.oneshot(model, compress.Recipe(modifiers=parts), toy.data)
    assert toy.bits_of(model) == before


def test_training_recovers_some_of_the_loss(toy):
    """Distillation after rounding, and QAT, end below rounding to nearest alone at 2 bits."""
    losses = {}
    for name, modifiers in {
        "rtn": (compress.RTN(bits=2),),
        "distilled": (compress.RTN(bits=2), compress.Distillation(steps=60, learning_rate=5e-3)),
        "qat": (compress.QAT(bits=2, steps=60, learning_rate=5e-3),),
    }.items():
        model = toy.Model().eval()
        compress.oneshot(model, compress.Recipe(modifiers=modifiers), toy.data)
        with paddle.no_grad():
            losses[name] = np.mean([float(toy.loss(model, b)) for b in toy.more_batches(8, seed=7)])
    assert losses["distilled"] < 0.8 * losses["rtn"]
    assert losses["qat"] < 0.8 * losses["rtn"]
