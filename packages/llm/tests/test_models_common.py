"""What every model of the registry must do."""

import json
from pathlib import Path

import numpy as np
import paddle
import pytest

from oarlock.llm import models

EXPECTED = Path(__file__).parent / "parity" / "expected"


@pytest.fixture(params=models.names())
def name(request):
    return request.param


@pytest.fixture
def model(name, small_model):
    return small_model(name).eval()


def test_logits_equal_those_recorded_from_hugging_face(name, model, tokens):
    """``parity/record.py`` recorded them with torch, from the same weights."""
    expected = np.array(json.loads((EXPECTED / f"{name}.json").read_text()))
    logits = model(tokens)
    assert logits.dtype == paddle.float32
    np.testing.assert_allclose(logits.numpy(), expected, rtol=0, atol=1e-5)


def test_later_tokens_change_nothing_before_them(model, tokens):
    changed = tokens.numpy().copy()
    changed[:, 6:] = (changed[:, 6:] + 1) % model.config.vocab_size
    before, after = model(tokens).numpy(), model(paddle.to_tensor(changed)).numpy()
    np.testing.assert_allclose(after[:, :6], before[:, :6], atol=1e-5)
    assert abs(after[:, 6:] - before[:, 6:]).max() > 0.1


def test_rows_of_a_batch_do_not_see_each_other(model, tokens):
    np.testing.assert_allclose(
        model(tokens[1:]).numpy(), model(tokens).numpy()[1:], atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("pieces", [[1] * 11, [4, 1, 6], [10, 1], [2, 9]])
def test_decoding_with_a_cache_equals_one_pass(model, tokens, pieces):
    cache, logits, start = model.new_cache(), [], 0
    for length in pieces:
        logits.append(model(tokens[:, start : start + length], cache).numpy())
        start += length
        assert cache.length == start
    np.testing.assert_allclose(
        np.concatenate(logits, 1), model(tokens).numpy(), atol=2e-5, rtol=1e-5
    )


def test_greedy_text_is_the_same_with_and_without_cache(model, tokens):
    prompt = tokens[:, :3]
    text = model.generate(prompt, max_new_tokens=7).numpy()
    assert text.shape == (2, 10)
    assert (text == model.generate(prompt, max_new_tokens=7, use_cache=False).numpy()).all()
    for position in range(3, 10):
        logits = model(paddle.to_tensor(text[:, :position]))[:, -1].numpy()
        assert (logits.argmax(-1) == text[:, position]).all()


def test_sampling_depends_on_the_seed_only(model, tokens):
    def sample(seed, **options):
        options = {"temperature": 1.5, "max_new_tokens": 8} | options
        return model.generate(tokens[:, :2], seed=seed, **options).numpy()

    assert (sample(1) == sample(1)).all()
    assert (sample(1) != sample(2)).any()
    assert (sample(1, top_k=1) == sample(0, temperature=0.0)).all()


def test_loss_is_the_mean_over_the_targets_that_count(model, tokens):
    targets = tokens.numpy().copy()
    targets[0, :5] = -100
    logits = model(tokens).numpy().astype(np.float64)
    log_probabilities = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    rows, columns = np.nonzero(targets >= 0)
    expected = -log_probabilities[rows, columns, targets[rows, columns]].mean()
    assert model.loss(tokens, paddle.to_tensor(targets)).item() == pytest.approx(expected, 1e-5)


def test_gradients_equal_finite_differences(model, tokens):
    """The derivative along a random direction, parameter by parameter, in float64."""
    model.to(dtype="float64")
    targets = paddle.roll(tokens, -1, 1)
    loss = model.loss(tokens, targets)
    assert loss.dtype == paddle.float64
    loss.backward()
    rng = np.random.default_rng(0)
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        value = parameter.numpy()
        direction = rng.standard_normal(value.shape)
        step = 1e-5 / np.linalg.norm(direction)
        losses = []
        for sign in (1, -1):
            parameter.set_value(value + sign * step * direction)
            with paddle.no_grad():
                losses.append(model.loss(tokens, targets).item())
        parameter.set_value(value)
        expected = (losses[0] - losses[1]) / (2 * step)
        found = float((parameter.grad.numpy() * direction).sum())
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-6), key


def test_same_seed_same_weights(name, small_config):
    one, two, other = (models.create(name, small_config(name), seed=s) for s in (3, 3, 4))
    same = [(a.numpy() == b.numpy()).all() for a, b in zip(one.parameters(), two.parameters())]
    assert all(same)
    assert any((a.numpy() != b.numpy()).any() for a, b in zip(one.parameters(), other.parameters()))


def test_fresh_model_knows_nothing_and_learns_a_text_by_heart(name, small_config, tokens):
    model = models.create(name, small_config(name))
    targets = paddle.roll(tokens, -1, 1)
    optimizer = paddle.optimizer.AdamW(2e-2, parameters=model.parameters(), weight_decay=0.0)
    first = model.loss(tokens, targets).item()
    assert first == pytest.approx(np.log(model.config.vocab_size), abs=0.3)
    for _ in range(25):
        loss = model.loss(tokens, targets)
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
    assert loss.item() < 0.4 * first


def test_one_token_texts_work(model):
    assert model(paddle.to_tensor([[5]])).shape == [1, 1, model.config.vocab_size]


def test_saved_model_loads_exactly(model, tokens, tmp_path):
    models.save(model, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    loaded = models.load(tmp_path).eval()
    assert type(loaded) is type(model) and loaded.config == model.config
    assert (loaded(tokens).numpy() == model(tokens).numpy()).all()


def test_truncated_weights_are_refused(model, tmp_path):
    models.save(model, tmp_path)
    path = tmp_path / "model.safetensors"
    whole = path.read_bytes()
    for length in (0, 7, 100, len(whole) - 4):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=rf"model.safetensors \({length} bytes\) is truncated"):
            models.load(tmp_path)


def test_configuration_goes_through_json(name, small_config):
    config = small_config(name)
    fields = json.loads(json.dumps(config.to_dict()))
    assert models.config_class(name).from_dict(fields) == config
    with pytest.raises(ValueError, match="did you mean 'hidden_size'"):
        models.config_class(name).from_dict(fields | {"hiden_size": 8})
    del fields["vocab_size"]
    with pytest.raises(ValueError, match="needs vocab_size"):
        models.config_class(name).from_dict(fields)


@pytest.mark.parametrize(
    "field, value",
    [
        ("vocab_size", 0),
        ("hidden_size", 2.5),
        ("num_layers", True),
        ("norm_epsilon", 0.0),
        ("norm_epsilon", float("nan")),
    ],
)
def test_bad_configuration_names_the_field(name, small_config, field, value):
    with pytest.raises(ValueError, match=f"{field} must be .*got {value}"):
        small_config(name, **{field: value})


@pytest.mark.parametrize(
    "options, message",
    [
        ({"max_new_tokens": -1}, "max_new_tokens must be 0 or more, got -1"),
        ({"temperature": -1.0}, "temperature must be 0 or more"),
        ({"top_k": 0}, "top_k must be in 1..29, got 0"),
        ({"seed": "x"}, "seed must be an integer, 0 or above, got 'x'"),
    ],
)
def test_bad_decoding_arguments_are_named(model, tokens, options, message):
    arguments = {"tokens": tokens, "max_new_tokens": 1} | options
    with pytest.raises(ValueError, match=message):
        model.generate(arguments.pop("tokens"), **arguments)


@pytest.mark.parametrize(
    "wrong, found",
    [
        (paddle.zeros([2], "int64"), r"shape \[2\]"),
        (paddle.zeros([2, 0], "int64"), r"shape \[2, 0\]"),
        (paddle.zeros([2, 3]), r"paddle.float32 of shape \[2, 3\]"),
        ([[1, 2]], "list"),
        (np.zeros([2, 3], int), "ndarray"),
        (paddle.to_tensor([[3, 29]]), "29"),
        (paddle.to_tensor([[-1, 3]]), "-1"),
    ],
)
def test_wrong_tokens_are_named(model, wrong, found):
    message = rf"tokens must be (an int64 tensor|ids of the vocabulary).*, got {found}\."
    for call in (model, lambda t: model.loss(t, t), lambda t: model.generate(t, max_new_tokens=1)):
        with pytest.raises(ValueError, match=message):
            call(wrong)


def test_decoding_stops_at_the_stop_token(model, tokens):
    text = model.generate(tokens[:, :3], max_new_tokens=8).numpy()
    stop = int(text[0, 4])
    stopped = model.generate(tokens[:, :3], max_new_tokens=8, stop_token=stop).numpy()
    for row, whole in zip(stopped, text):
        at = next((i for i in range(3, len(row)) if row[i] == stop), len(row))
        assert (row[:at] == whole[:at]).all() and (row[at:] == stop).all()


def test_size_is_the_sum_of_the_parameters(model):
    assert model.num_parameters() == sum(value.numpy().size for value in model.parameters())
