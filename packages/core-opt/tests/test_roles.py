"""Roles: which parameter is a hidden matrix, an embedding, a head or a vector."""

import paddle
import pytest
from oarlock.core_opt import optim
from oarlock.core_opt.optim import Role
from paddle import nn


class Block(nn.Layer):
    def __init__(self, width=8):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, width)  # a head's name, but inside a block
        self.down = nn.Linear(width, width)


class Language(nn.Layer):
    def __init__(self, tied=False, head="lm_head"):
        super().__init__()
        self.embed = nn.Embedding(50, 8)
        self.layers = nn.LayerList([Block() for _ in range(2)])
        if not tied:
            self.add_sublayer(head, nn.Linear(8, 50, bias_attr=False))
        else:
            self.tied = self.embed.weight


class Experts(nn.Layer):
    def __init__(self):
        super().__init__()
        self.expert_up = self.create_parameter([4, 8, 16])
        self.mystery = self.create_parameter([8, 8])


def test_language_model():
    found = optim.roles(Language())
    assert found["embed.weight"] is Role.EMBEDDING
    assert found["layers.0.output.weight"] is Role.HIDDEN_MATRIX
    assert found["layers.1.down.weight"] is Role.HIDDEN_MATRIX
    assert found["layers.1.norm.weight"] is Role.VECTOR
    assert found["layers.1.down.bias"] is Role.VECTOR
    assert found["lm_head.weight"] is Role.HEAD
    assert len(found) == len(list(Language().parameters()))


def test_head_is_found_by_vocabulary_whatever_its_name():
    assert optim.roles(Language(head="to_logits"))["to_logits.weight"] is Role.HEAD


def test_tied_embedding_is_an_embedding_and_the_last_block_is_no_head():
    found = optim.roles(Language(tied=True))
    assert found["embed.weight"] is Role.EMBEDDING
    assert Role.HEAD not in found.values()


def test_last_linear_layer_and_convolutions():
    model = nn.Sequential(nn.Conv2D(3, 8, 3), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    found = optim.roles(model)
    assert found["0.weight"] is Role.CONV and found["0.bias"] is Role.VECTOR
    assert found["1.weight"] is Role.HIDDEN_MATRIX and found["3.weight"] is Role.HEAD


def test_grouped_convolutions_are_no_matrix():
    found = optim.roles(nn.Sequential(nn.Conv2D(8, 8, 3, groups=8), nn.Conv1D(8, 8, 3)))
    assert found["0.weight"] is Role.VECTOR and found["1.weight"] is Role.CONV


@pytest.mark.parametrize(
    "build,head,matrices",
    [
        (lambda: nn.Transformer(16, 2, 2, 2, 32), None, 2 * 6 + 2 * 10),
        (lambda: paddle.vision.models.resnet18(num_classes=10), "fc.weight", 0),
        (lambda: paddle.vision.models.mobilenet_v2(), "classifier.1.weight", 0),
    ],
    ids=["transformer", "resnet", "mobilenet"],
)
def test_paddles_own_models(build, head, matrices):
    found = optim.roles(build())
    heads = [name for name, role in found.items() if role is Role.HEAD]
    assert heads == ([head] if head else [])
    assert sum(role is Role.HIDDEN_MATRIX for role in found.values()) == matrices


def test_of_finds_a_tensor():
    model = Language()
    found = optim.roles(model)
    assert found.of(model.embed.weight) is Role.EMBEDDING
    with pytest.raises(ValueError, match="not in these roles"):
        found.of(Language().embed.weight)


def test_unknown_layers_are_refused_until_named():
    with pytest.raises(ValueError, match=r"mystery \[8, 8\] in Experts.*override"):
        optim.roles(Experts())
    found = optim.roles(Experts(), override={"mys*": "hidden_matrix"})
    assert found["mystery"] is Role.HIDDEN_MATRIX
    assert found["expert_up"] is Role.EXPERTS


def test_a_layer_may_declare_roles():
    model = Experts()
    model.parameter_roles = {"mystery": "embedding"}
    assert optim.roles(model)["mystery"] is Role.EMBEDDING


def test_overrides():
    found = optim.roles(
        Language(), override={"layers.*.weight": Role.VECTOR, "layers.1.down.*": "hidden_matrix"}
    )
    assert found["layers.0.down.weight"] is Role.VECTOR
    assert found["layers.1.down.weight"] is Role.HIDDEN_MATRIX  # the last match wins
    with pytest.raises(ValueError, match="'lm_haed.weight' matches no parameter.*lm_head.weight"):
        optim.roles(Language(), override={"lm_haed.weight": Role.HEAD})
    with pytest.raises(ValueError, match="unknown role 'heads'.*'head'"):
        optim.roles(Language(), override={"lm_head.weight": "heads"})
    with pytest.raises(ValueError, match="paddle.nn.Layer"):
        optim.roles([1])


def test_table():
    lines = str(optim.roles(Language())).splitlines()
    assert lines[0].split() == ["parameter", "shape", "role", "because"]
    assert any("embed.weight" in line and "50 x 8" in line for line in lines)
    assert lines[-1].startswith("elements: hidden_matrix 256")
