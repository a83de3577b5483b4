"""Which data a pipeline sees, what it holds, and files that are damaged or of another model."""

import logging

import numpy as np
import paddle
import pytest
from oarlock.core_opt import compress
from oarlock.core_opt.compress import pipeline, statistics
from oarlock.core_opt.compress.structure import structure


def test_sequential_holds_one_block_at_a_time(toy, monkeypatch):
    asked = []
    collect = statistics.collect

    def watch(model, batches, loss, names, **options):
        asked.append(list(names))
        return collect(model, batches, loss, names, **options)

    monkeypatch.setattr(pipeline.statistics, "collect", watch)
    compress.oneshot(toy.Model(), compress.Recipe(modifiers=(compress.GPTQ(),)), toy.data)
    block = [f"blocks.0.{name}" for name in ("mix", "up", "down")]
    assert asked[0] == block and [len(names) for names in asked] == [3, 3, 3, 1]
    asked.clear()
    one = compress.Recipe(modifiers=(compress.GPTQ(),), pipeline="basic")
    compress.oneshot(toy.Model(), one, toy.data)
    assert [len(names) for names in asked] == [10]


def test_sequential_sees_what_compressed_blocks_give(toy):
    """Statistics of the second block are those of a model whose first block is quantised."""
    model, partly = toy.Model(), toy.Model()
    coarse = compress.RTN(bits=2, targets=("blocks.0.*",))
    compress.oneshot(partly, compress.Recipe(modifiers=(coarse,)), toy.data)
    recipe = compress.Recipe(modifiers=(coarse, compress.GPTQ(ignore=("blocks.0.*",))))
    compress.oneshot(model, recipe, toy.data)
    compress.oneshot(partly, compress.Recipe(modifiers=(compress.GPTQ(),)), toy.data)
    assert toy.bits_of(model) == toy.bits_of(partly)


def test_a_pass_ends_once_its_layers_were_called(toy):
    model, reached = toy.Model(), []
    model.head.register_forward_pre_hook(lambda layer, inputs: reached.append(1))
    names = ["blocks.0.mix", "blocks.0.up"]
    found = statistics.collect(model, toy.batches, toy.loss, names, stop=True)
    assert not reached
    whole = statistics.collect(model, toy.batches, toy.loss, names)
    assert reached
    for name in names:
        np.testing.assert_array_equal(found[name].second_moment, whole[name].second_moment)


def test_a_layer_that_is_called_twice_is_seen_twice(toy):
    class Twice(toy.Model):
        def forward(self, tokens):
            x, shift = self.embedding(tokens), paddle.zeros([1])
            for block in [*self.blocks, self.blocks[0]]:
                x = block(x, shift)
            return self.head(x)

    result = compress.oneshot(Twice(), compress.Recipe(modifiers=(compress.GPTQ(),)), toy.data)
    rows = {layer.name: layer.rows for layer in result.layers}
    assert rows["blocks.0.up"] == 2 * rows["blocks.1.up"]


def test_layers_without_data_are_refused_or_rounded_to_nearest(toy):
    class Unused(toy.Model):
        def __init__(self):
            super().__init__()
            self.expert = paddle.nn.Linear(16, 16)

    model = Unused()
    before = toy.bits_of(model)
    with pytest.raises(ValueError, match="'expert' saw no input"):
        compress.oneshot(model, compress.Recipe(modifiers=(compress.GPTQ(),)), toy.data)
    assert toy.bits_of(model) == before
    parts = (compress.GPTQ(ignore=("expert",)), compress.RTN(targets=("expert",)))
    compress.oneshot(model, compress.Recipe(modifiers=parts), toy.data)
    assert isinstance(model.expert, compress.QuantizedLinear)


def test_too_few_inputs_are_told(toy, caplog):
    data = compress.Data(
        batches=[(t[:1, :5], y[:1, :5]) for t, y in toy.batches[:1]], loss=toy.loss
    )
    with caplog.at_level(logging.WARNING):
        compress.oneshot(toy.Model(), compress.Recipe(modifiers=(compress.GPTQ(),)), data)
    assert "saw 5 inputs of size 16" in caplog.text


def test_pruning_stays_under_rounding_and_training(toy):
    model = toy.Model()
    parts = (
        compress.SparseGPT(sparsity=0.5),
        compress.Distillation(steps=4, learning_rate=0.01),
        compress.GPTQ(bits=4),
    )
    result = compress.oneshot(model, compress.Recipe(modifiers=parts), toy.data)
    weight = model.blocks[0].up.dequantized().numpy()
    assert (weight == 0).mean() >= 0.5
    assert result.layers[-1].density == pytest.approx(0.5, abs=0.01)


def test_structure(toy):
    found = structure(toy.Model())
    assert found.blocks == ("blocks.0", "blocks.1", "blocks.2") and len(found.linears) == 10
    assert structure(toy.Model(), blocks=["blocks.1"]).blocks == ("blocks.1",)
    with pytest.raises(ValueError, match="no paddle.nn.Linear"):
        structure(paddle.nn.LayerNorm(4))
    with pytest.raises(ValueError, match="LayerList"):
        structure(toy.Model(), blocks="head")


def test_state_folder_of_another_run_is_refused(toy, tmp_path):
    recipe = compress.Recipe(modifiers=(compress.RTN(),))
    compress.oneshot(toy.Model(), recipe, toy.data, state=tmp_path / "state")
    for model, other in (
        (toy.Model(seed=3), recipe),
        (toy.Model(), compress.Recipe(modifiers=(compress.GPTQ(),))),
    ):
        with pytest.raises(ValueError, match="another run"):
            compress.oneshot(model, other, toy.data, state=tmp_path / "state")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds other files"):
        compress.oneshot(toy.Model(), recipe, toy.data, state=tmp_path / "mine")


@pytest.mark.parametrize("damage", ["cut", "other", "model"])
def test_damaged_files_leave_the_model(toy, tmp_path, damage):
    path = tmp_path / "model.npz"
    model = toy.Model()
    compress.oneshot(model, compress.Recipe(modifiers=(compress.RTN(),)), toy.data)
    compress.save(model, path)
    fresh = toy.Model(seed=2)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "other":
        np.savez(path, a=np.zeros(3))
    else:
        fresh.blocks[1].down = paddle.nn.LayerNorm(3)
    before, layers = toy.bits_of(fresh), dict(fresh.named_sublayers())
    with pytest.raises(ValueError, match="damaged|fit|another model"):
        compress.load(fresh, path)
    assert toy.bits_of(fresh) == before and dict(fresh.named_sublayers()) == layers


def test_nothing_half_written_when_the_disk_is_full(toy, tmp_path, monkeypatch):
    path = tmp_path / "model.npz"
    path.write_bytes(b"old")

    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        compress.save(toy.Model(), path)
    monkeypatch.undo()
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["model.npz"]


def test_recipe_of_all_kinds_of_fields_in_yaml():
    text = """
pipeline: basic
max_batches: 2
modifiers:
- kind: awq
  bits: 3
  observer: {kind: mse, steps: 9}
- kind: gptq
  bits: 3
  group: 8
  observer: {kind: percentile, keep: 0.99}
  layer_bits: {head: 8, 'blocks.*.up': 4}
  ignore: ['*.mix']
- kind: remove_heads
  heads: {'*.mix': 4}
"""
    recipe = compress.Recipe.from_yaml(text)
    awq, gptq, heads = recipe.modifiers
    assert awq.observer == compress.MSE(steps=9) and dict(heads.heads) == {"*.mix": 4}
    assert gptq.bits_of("head") == 8 and gptq.bits_of("blocks.2.up") == 4
    assert gptq.bits_of("blocks.2.down") == 3 and gptq.ignore == ("*.mix",)
    again = compress.Recipe.from_yaml(recipe.to_yaml())
    assert again == recipe and again.to_yaml() == recipe.to_yaml()


def test_recipe_file(tmp_path):
    (tmp_path / "recipe.yaml").write_text("modifiers: [{kind: rtn, bits: 3}]")
    found = compress.Recipe.read(tmp_path / "recipe.yaml")
    assert found == compress.Recipe(modifiers=(compress.RTN(bits=3),))
