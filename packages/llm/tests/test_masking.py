"""Masks of the layers: the same function by kernels, by dense attention and token by token."""

import numpy as np
import paddle
import pytest
from oarlock.native import masks

NAMES = ["gpt", "llama", "glm", "moe"]
WINDOW = masks.sliding_window(11, 3)


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def model(name, small_model):
    return small_model(name).eval()


def test_a_causal_mask_changes_nothing(model, tokens):
    expected = model(tokens).numpy()
    model.attend(masks.causal())
    np.testing.assert_allclose(model(tokens).numpy(), expected, atol=1e-5)
    model.attend(None)
    np.testing.assert_array_equal(model(tokens).numpy(), expected)


def test_a_window_hides_what_is_before_it(model, tokens):
    model.attend(WINDOW)
    reach = 2 * model.config.num_layers  # each layer sees two tokens back
    changed = tokens.numpy().copy()
    changed[:, 0] = (changed[:, 0] + 1) % model.config.vocab_size
    before, after = model(tokens).numpy(), model(paddle.to_tensor(changed)).numpy()
    assert reach + 1 < tokens.shape[1]
    np.testing.assert_allclose(after[:, reach + 1 :], before[:, reach + 1 :], atol=1e-6)
    assert abs(after[:, 1] - before[:, 1]).max() > 1e-3


@pytest.mark.parametrize("pieces", [[1] * 11, [4, 1, 6], [10, 1]])
def test_a_cache_sees_the_same_as_the_kernels(model, tokens, pieces):
    layers = model.config.num_layers
    model.attend([WINDOW] * (layers - 1) + [masks.causal()])
    cache, logits, start = model.new_cache(), [], 0
    for length in pieces:
        logits.append(model(tokens[:, start : start + length], cache).numpy())
        start += length
    expected = model(tokens).numpy()
    np.testing.assert_allclose(np.concatenate(logits, 1), expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["llama", "glm"])  # positions by rotation only
def test_documents_train_as_if_each_was_alone(name, small_model, tokens):
    model = small_model(name)
    targets = paddle.roll(tokens, -1, axis=1)
    model.attend(masks.document([5, 6]))
    packed = model.loss(tokens, targets)
    packed.backward()
    gradients = {key: p.grad.numpy().copy() for key, p in model.named_parameters()}
    model.clear_gradients()
    model.attend(None)
    parts = [(tokens[:, :5], targets[:, :5]), (tokens[:, 5:], targets[:, 5:])]
    alone = sum(model.loss(*part) * part[0].shape[1] for part in parts) / 11
    alone.backward()
    np.testing.assert_allclose(packed.item(), alone.item(), rtol=1e-5)
    for key, p in model.named_parameters():
        np.testing.assert_allclose(gradients[key], p.grad.numpy(), rtol=1e-3, atol=1e-5)


def test_wrong_masks_are_refused(model, tokens):
    layers = model.config.num_layers
    for wrong, message in (
        (masks.full(), "causal mask"),
        ([masks.causal()] * (layers + 1), f"each of {layers} layers, got {layers + 1}"),
        (masks.Mask(True, np.full((1, 2, 11, 1), 11, np.int32)), "one for all heads, has 2"),
        ([None] * layers, "must be a causal mask"),
    ):
        with pytest.raises(ValueError, match=message):
            model.attend(wrong)
    assert model.attention_masks is None
    model.attend(masks.sliding_window(8, 3))
    with pytest.raises(ValueError, match="position 11, but a mask is for 8"):
        model(tokens)


@pytest.mark.parametrize("name", ["bloom", "rwkv4"])
def test_models_with_other_attention_refuse_masks(name, small_model):
    with pytest.raises(ValueError, match="takes no masks"):
        small_model(name).attend(masks.causal())
