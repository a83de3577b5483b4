"""Scaled rotary positions: frequencies of transformers, models by the reference, bad settings."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import paddle
import pytest

from oarlock.llm import models
from oarlock.llm.loading import hugging_face_config
from oarlock.llm.loading.fields import Fields
from oarlock.llm.models import common, rope
from oarlock.llm.models.rope import RopeScaling

RECORDED = json.loads((Path(__file__).parent / "parity/expected/rope.json").read_text())


@pytest.mark.parametrize(
    "scaling, length, expected, factor",
    RECORDED,
    ids=[f"{i}-{case[0]['rope_type']}" for i, case in enumerate(RECORDED)],
)
def test_frequencies_are_those_of_transformers(scaling, length, expected, factor):
    fields = Fields({"rope_theta": 5000.0, "rope_scaling": scaling}, "config.json")
    theta, ours = hugging_face_config._rope(fields, 64)
    np.testing.assert_allclose(
        rope.frequencies(32, theta, ours, length), expected, rtol=2e-5, atol=1e-12
    )
    assert rope.amplitude(ours) == pytest.approx(factor, rel=1e-6)
    # as transformers 5 writes it
    fields = Fields({"rope_parameters": {"rope_theta": 5000.0, **scaling}}, "config.json")
    assert hugging_face_config._rope(fields, 64) == (theta, ours)


def test_every_recorded_kind_and_divided():
    kinds = {case[0]["rope_type"] for case in RECORDED}
    assert kinds | {"divided"} == set(rope.KINDS)
    plain = rope.frequencies(8, 100.0, None, 9)
    divided = RopeScaling(kind="divided", divisors=(1.0, 2.0, 4.0, 8.0))
    np.testing.assert_allclose(rope.frequencies(8, 100.0, divided, 9), plain / [1, 2, 4, 8])


def test_llama3_scaling_equals_its_divisors(small_model, tokens):
    scaling = RopeScaling(kind="llama3", factor=4.0, original_length=16)
    model = small_model("llama", rope_scaling=scaling)
    ratio = rope.frequencies(4, 500.0, None, 1) / rope.frequencies(4, 500.0, scaling, 1)
    assert ratio.max() > 1
    divided = RopeScaling(kind="divided", divisors=tuple(ratio.tolist()))
    other = small_model("llama", rope_scaling=divided)
    np.testing.assert_allclose(model(tokens).numpy(), other(tokens).numpy(), atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "moe"])
def test_dynamic_scaling_takes_the_length_of_the_text(small_model, tokens, family):
    dynamic = small_model(
        family, rope_scaling=RopeScaling(kind="dynamic", factor=2.0, original_length=8)
    )
    plain = small_model(family)
    short = tokens[:, :8]
    np.testing.assert_allclose(dynamic(short).numpy(), plain(short).numpy(), atol=1e-6)
    theta = 2.0 * 11 / 8 - 1
    size = dynamic.config.head_size
    base = dynamic.config.rope_theta * theta ** (size / (size - 2))
    longer = small_model(family, rope_theta=base)
    np.testing.assert_allclose(dynamic(tokens).numpy(), longer(tokens).numpy(), atol=1e-5)


@pytest.mark.parametrize("kind", ["linear", "yarn", "llama3"])
def test_caches_see_the_same_positions(small_model, tokens, kind):
    scaling = RopeScaling(kind=kind, factor=2.0, original_length=8)
    model = small_model("llama", rope_scaling=scaling, qkv_bias=True, window=4, head_size=6).eval()
    cache, whole = model.new_cache(), model(tokens).numpy()
    parts = [model(tokens[:, :5], cache), model(tokens[:, 5:6], cache), model(tokens[:, 6:], cache)]
    np.testing.assert_allclose(paddle.concat(parts, 1).numpy(), whole, atol=1e-5)


@pytest.mark.parametrize("T, S, window", [(5, 5, 2), (3, 7, 3), (1, 6, 2), (4, 4, 4), (2, 3, 8)])
def test_windows_hide_what_lies_back(T, S, window):
    found = common.causal_bias(T, S, paddle.float32, window)
    seen = np.ones([T, S], bool) if found is None else found.numpy() == 0
    query, key = np.arange(S - T, S)[:, None], np.arange(S)
    assert (np.broadcast_to(seen, [T, S]) == ((key <= query) & (key > query - window))).all()


def test_masks_and_windows_do_not_mix(small_model):
    from oarlock.native import masks

    with pytest.raises(ValueError, match="model with a window of its own"):
        small_model("llama", window=4).attend(masks.causal())


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"kind": "ntk"}, "kind must be one of .*'linear'"),
        ({"kind": "yarn", "factor": 2.0}, "original_length must be a positive integer for yarn"),
        ({"kind": "linear", "factor": 0}, "factor must be a finite number above 0, got 0"),
        ({"kind": "linear", "factor": True}, "factor must be a finite number"),
        ({"kind": "linear", "divisors": (1.0,)}, "divisors must be given for divided"),
        ({"kind": "divided"}, "divisors must be given for divided"),
        ({"kind": "divided", "divisors": (1.0, -1.0)}, r"divisors\[1\] must be a finite"),
        (
            {"kind": "llama3", "original_length": 8, "low_turns": 4.0},
            "low_turns must be below high_turns = 4.0",
        ),
    ],
)
def test_bad_scalings_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        RopeScaling(**fields)


def test_bad_scalings_in_configurations(small_config):
    with pytest.raises(ValueError, match="divisors must be 2, one a pair of a head of 4, got 3"):
        small_config("llama", rope_scaling=RopeScaling(kind="divided", divisors=(1.0, 1.0, 1.0)))
    with pytest.raises(ValueError, match="rope_scaling must be a RopeScaling or None, got 3"):
        small_config("llama", rope_scaling=3)
    with pytest.raises(ValueError, match="rope_scaling must have kind and of"):
        small_config("llama", rope_scaling={"kind": "linear", "speed": 2})
    for name, value in (("window", 0), ("head_size", 3), ("qkv_bias", 1)):
        with pytest.raises(ValueError, match=f"{name} must be"):
            small_config("llama", **{name: value})


def test_scaling_goes_through_our_own_folder(small_model, tokens, tmp_path):
    scaling = RopeScaling(kind="yarn", factor=2.0, original_length=8)
    model = small_model("llama", rope_scaling=scaling, window=5, qkv_bias=True, head_size=6)
    models.save(model, tmp_path)
    loaded = models.load(tmp_path)
    assert loaded.config == model.config and dataclasses.asdict(scaling)["kind"] == "yarn"
    assert (loaded(tokens).numpy() == model(tokens).numpy()).all()


def test_undrawn_models_are_those_that_were_drawn_over(small_config, tokens):
    config = small_config("llama")
    drawn, undrawn = models.create("llama", config, seed=3), models.undrawn("llama", config)
    undrawn.set_state_dict(drawn.state_dict())
    assert (drawn(tokens).numpy() == undrawn(tokens).numpy()).all()
