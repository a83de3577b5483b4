"""What the experiments of criterion 1.3 measure with."""

import numpy as np
import paddle
import pytest
from oarlock.accept.compression.choices import Choices, loss
from oarlock.accept.compression.quality import probabilities, quality
from oarlock.accept.compression.subjects import Subject
from oarlock.core_opt import compress
from oarlock.llm import models

SIZES = {"vocab_size": 24, "hidden_size": 16, "num_layers": 2}


@pytest.fixture(scope="module", params=["llama", "rwkv4"])
def subject(request):
    extra = {"num_heads": 4, "intermediate_size": 32} if request.param == "llama" else {}
    config = models.config_class(request.param).from_dict(SIZES | extra)
    model = models.create(request.param, config, seed=0)
    rng = np.random.default_rng(0)
    for parameter in model.parameters():  # RWKV begins with zero maps
        if len(parameter.shape) == 2:
            parameter.set_value(rng.normal(0, 0.3, parameter.shape).astype("float32"))
    tokens = rng.integers(0, 24, (12, 17))
    batches = [
        (paddle.to_tensor(t[:, :-1]), paddle.to_tensor(t[:, 1:])) for t in np.split(tokens, 3)
    ]
    heads = {"*.attention.out": 4} if request.param == "llama" else {}
    return Subject(
        model=model.eval(),
        calibration=batches[:2],
        held_out=batches[2:],
        heads=heads,
        origin="made up",
        own_text=False,
    )


@pytest.fixture(scope="module")
def report(subject):
    question = compress.Question(bits=(2, 4), heads=subject.heads)
    return compress.analyse(subject.model, subject.calibration, loss, question=question)


def test_choices_change_the_model_and_leave_it_as_it_was(subject, report):
    model, choices = subject.model, Choices(subject, report)
    before = quality(model, subject.held_out)
    state = {name: t.numpy().tobytes() for name, t in model.state_dict().items()}
    kinds = {choice.kind for choice in report.choices}
    assert kinds >= {"bits", "sparsity", "block", "neurons"}
    for choice in report.choices:
        with choices.carried_out(choice):
            after = quality(model, subject.held_out)
        assert after.loss != before.loss, choice
        assert {n: t.numpy().tobytes() for n, t in model.state_dict().items()} == state
    assert quality(model, subject.held_out).loss == before.loss


def test_expected_losses_are_the_divergence(subject):
    """With the model's own probabilities, its loss is their entropy, and any other loss is above."""
    model = subject.model
    truth = probabilities(model, subject.held_out)
    own = quality(model, subject.held_out, truth)
    entropy = np.mean([-(p * paddle.log(p)).sum(-1).mean().item() for p in truth])
    assert own.loss == pytest.approx(entropy, rel=1e-4)
    weight = model.head.weight if hasattr(model, "head") else model.embedding.weight
    kept = weight.numpy()
    weight.set_value(kept * 1.3)
    other = quality(model, subject.held_out, truth)
    weight.set_value(kept)
    assert other.loss > own.loss and 0 <= other.flips(own) < 1
    assert own.flips(own) == 0
