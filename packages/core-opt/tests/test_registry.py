"""The registry of optimisers."""

import dataclasses

import paddle
import pytest
from oarlock.core_opt import optim
from oarlock.core_opt.optim.__main__ import table
from oarlock.core_opt.optim.reference import STEPS


def mlp():
    return paddle.nn.Sequential(paddle.nn.Linear(4, 8), paddle.nn.ReLU(), paddle.nn.Linear(8, 3))


def test_list_matches_patterns():
    assert {"adamw", "muon"} <= set(optim.list()) == set(STEPS)
    assert optim.list("ada*") == [name for name in optim.list() if name.startswith("ada")]
    assert optim.list("nothing*") == []


@pytest.mark.parametrize("name", optim.list())
def test_info_is_complete(name):
    info = optim.info(name)
    assert info.name == name and issubclass(info.cls, paddle.optimizer.Optimizer)
    assert info.paper and info.year > 1950 and info.description.endswith(".")
    assert {"learning_rate", "weight_decay", "grad_clip", "multi_precision", "path"} <= set(
        info.defaults
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        info.name = "other"
    with pytest.raises(TypeError):
        info.defaults["learning_rate"] = 1.0


@pytest.mark.parametrize("name", optim.list())
def test_create_from_a_model_trains_every_parameter(name):
    model = mlp()
    before = [p.numpy().copy() for p in model.parameters()]
    optimizer = optim.create(name, model, learning_rate=0.1)
    model(paddle.randn([16, 4])).square().mean().backward()
    optimizer.step()
    assert type(optimizer) is optim.info(name).cls
    assert all((p.numpy() != old).any() for p, old in zip(model.parameters(), before))


def test_create_uses_the_papers_learning_rate():
    assert optim.create("adamw", mlp()).get_lr() == optim.info("adamw").defaults["learning_rate"]


def test_frozen_parameters_are_left_out():
    model = mlp()
    model[0].weight.stop_gradient = True
    optimizer = optim.create("muon", model)
    assert len(optimizer._parameter_list) == 3


def test_unknown_names_get_near_matches():
    with pytest.raises(ValueError, match="unknown optimiser 'adamW'.*'adamw'"):
        optim.create("adamW", mlp())
    with pytest.raises(ValueError, match="unknown optimiser 'xyz': known: .*adamw"):
        optim.info("xyz")
    for wrong in (None, ["adamw"], mlp()):
        with pytest.raises(ValueError, match="name must be one of .*adamw, .*got ") as error:
            optim.create(wrong, mlp())
        assert "did you mean" not in str(error.value)
    with pytest.raises(ValueError, match="adamw has no option 'beta'.*'beta1'"):
        optim.create("adamw", mlp(), beta=0.9)
    with pytest.raises(ValueError, match="updates every role alike"):
        optim.create("adamw", mlp(), roles=optim.roles(mlp()))


def test_a_slip_of_position_is_told_in_a_line():
    with pytest.raises(ValueError, match="beta1 must be a number") as error:
        optim.AdamW(0.01, mlp().parameters())
    assert len(str(error.value)) < 120 and "\n" not in str(error.value)


def test_table_names_every_optimiser():
    lines = table().splitlines()
    assert lines[0].split()[0] == "name"
    assert [line.split()[0] for line in lines[1:]] == optim.list()
