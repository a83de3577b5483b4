"""Matrices on grids, LLaMAs described by their parts, and files that are whole or not there."""

import dataclasses
import resource
from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from oarlock.core_opt.compress.export import codes, files, llama, reference
from oarlock.core_opt.compress.export.codes import Codes
from oarlock.core_opt.compress.export.llama import LlamaSizes

SIZES = LlamaSizes(
    vocab_size=40,
    hidden_size=32,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    intermediate_size=40,
    max_length=16,
)
TOKENS = np.array([3, 39, 0, 7, 7, 21])


def grid(rows=12, columns=5, bits=4, groups=3, seed=0):
    rng = np.random.default_rng(seed)
    return Codes(
        bits=bits,
        codes=rng.integers(0, 2**bits, (rows, columns)).astype(np.uint8),
        scale=rng.uniform(0.1, 1, (groups, columns)).astype(np.float32),
        zero=rng.integers(0, 2**bits, (groups, columns)).astype(np.float32),
    )


def test_values_are_scale_times_steps_from_zero():
    one = grid()
    for row in range(12):
        group = row // 4
        expected = one.scale[group] * (one.codes[row] - one.zero[group])
        np.testing.assert_allclose(one.values()[row], expected, rtol=1e-6)


def test_smaller_groups_and_padding_keep_the_values():
    one = grid()
    np.testing.assert_array_equal(one.regrouped(2).values(), one.values())
    for whole, shape in ((one, (16, 7)), (grid(groups=1), (13, 5))):
        padded = whole.padded(*shape)
        assert padded.values().shape == shape
        np.testing.assert_array_equal(padded.values()[:12, :5], whole.values())
        assert not padded.values()[12:].any() and not padded.values()[:, 5:].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bits": 9}, "bits must lie in 2..8, got 9"),
        ({"codes": np.full((12, 5), 16, np.uint8)}, "codes of 4 bits must be at most 15, got 16"),
        ({"codes": np.zeros((12, 5), np.int64)}, "codes must be uint8"),
        ({"scale": np.full((3, 5), np.nan, np.float32)}, "scale must be finite"),
        ({"scale": np.ones((5, 5), np.float32)}, "scale must be .* divide 12"),
        ({"zero": np.full((3, 5), 0.5, np.float32)}, "zero must be whole numbers in 0..15"),
        ({"zero": np.zeros((1, 5), np.float32)}, "zero must be"),
    ],
)
def test_wrong_grids_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(grid(), **change)


def test_groups_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="groups of 4 rows cannot be cut into groups of 3"):
        grid().regrouped(3)
    with pytest.raises(ValueError, match="cannot be padded"):
        grid().padded(13, 5)
    with pytest.raises(ValueError, match="group must divide the 12 rows, got 5"):
        codes.rounded(np.ones((12, 5)), bits=4, group=5)
    with pytest.raises(ValueError, match="weight must be finite"):
        codes.rounded(np.full((12, 5), np.inf), bits=4)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("group", [None, 4])
def test_rounding_goes_to_the_nearest_value(bits, group):
    weight = np.random.default_rng(1).standard_normal((12, 5)).astype(np.float32)
    weight[:, 4] = 0  # a column without any weight
    one = codes.rounded(weight, bits=bits, group=group)
    scale = np.repeat(one.scale, one.group, axis=0)
    grid = scale[..., None] * (np.arange(2**bits) - 2 ** (bits - 1))
    nearest = np.abs(grid - weight[..., None]).min(-1)
    np.testing.assert_allclose(np.abs(one.values() - weight), nearest, atol=1e-6)
    assert not one.values()[:, 4].any()
    extreme = np.abs(weight).argmax(0)  # of a column: always on its grid
    columns = np.arange(4)
    values = one.values()[extreme[:4], columns]
    np.testing.assert_allclose(values, weight[extreme[:4], columns], rtol=1e-6)


def quantized_layer(**extras):
    """What a quantised layer offers, as ``compress.layers.QuantizedLinear`` does."""
    spec = {"bits": 4, "scaled_input": False, "hadamard_block": None, "rank": 0}
    spec |= {"activation_bits": None} | extras
    layer = paddle.nn.Layer()
    layer.spec, one = SimpleNamespace(**spec), grid()
    layer.scale = layer.create_parameter([3, 5])
    layer.scale.set_value(one.scale)
    layer.codes, layer.zeros = (lambda: one.codes), (lambda: one.zero.astype(np.uint8))
    return layer


def test_a_quantised_layer_gives_its_codes():
    found, expected = codes.of_layer(quantized_layer()), grid()
    np.testing.assert_array_equal(found.codes, expected.codes)
    np.testing.assert_array_equal(found.values(), expected.values())


@pytest.mark.parametrize(
    "extra", [{"scaled_input": True}, {"hadamard_block": 8}, {"rank": 2}, {"activation_bits": 8}]
)
def test_a_layer_that_does_more_is_refused(extra):
    with pytest.raises(ValueError, match=f"query has {next(iter(extra))}=.* cannot hold"):
        codes.of_layer(quantized_layer(**extra), "query")


def test_parts_must_make_a_llama():
    weights = llama.random(SIZES, seed=0)
    parts = dict(weights.parts)
    del parts["norm"]
    parts["blocks.1.query"] = parts["blocks.1.query"][:, 1:]
    parts["other"] = np.ones(1, np.float32)
    parts["blocks.0.gate"] = np.full((32, 40), np.nan, np.float32)
    with pytest.raises(ValueError) as refused:
        llama.LlamaWeights(sizes=SIZES, parts=parts)
    for wrong in (
        "norm is missing",
        "other is not a part",
        "blocks.1.query is (32, 31), expected (32, 32)",
        "blocks.0.gate holds NaN or infinity",
    ):
        assert wrong in str(refused.value)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("quantized", [False, True])
def test_padding_does_not_change_the_function(tied, quantized):
    weights = llama.random(SIZES, seed=1, tied=tied, std=0.3)
    if quantized:
        weights = weights.rounded(lambda w: codes.rounded(w, bits=4, group=8), weights.matrices())
    padded = weights.padded(32)
    assert padded.sizes.intermediate_size == 64
    expected = reference.logits(weights, TOKENS)
    np.testing.assert_allclose(reference.logits(padded, TOKENS), expected, rtol=1e-9)


def test_from_state_finds_parts_codes_and_the_other_order_of_pairs():
    weights = llama.random(SIZES, seed=2, std=0.3)
    turned = llama.halves(weights)
    state = {llama_name(name): part for name, part in turned.parts.items()}
    again = llama.from_state(state, SIZES, pairs="halves")
    for name, part in weights.parts.items():
        np.testing.assert_array_equal(again.parts[name], part)
    value = codes.rounded(weights.parts["blocks.1.value"], bits=4)
    del state["blocks.1.attention.value.weight"]
    mixed = llama.from_state(state, SIZES, codes={"blocks.1.value": value})
    assert mixed.parts["blocks.1.value"] is value
    with pytest.raises(ValueError, match="blocks.1.value is missing"):
        llama.from_state(state, SIZES)
    with pytest.raises(ValueError, match="codes of no part: mine"):
        llama.from_state(state, SIZES, codes={"blocks.1.value": value, "mine": value})


def llama_name(part):
    block, _, kind = part.rpartition(".")
    pattern = llama.OARLOCK_NAMES[f"blocks.{{i}}.{kind}" if block else part]
    return pattern.replace("{i}", block.removeprefix("blocks."))


def test_sizes_name_what_a_config_lacks():
    with pytest.raises(ValueError, match="SimpleNamespace has no num_kv_heads, intermediate_size"):
        LlamaSizes.of(SimpleNamespace(vocab_size=1, hidden_size=1, num_layers=1, num_heads=1))
    with pytest.raises(ValueError, match="hidden_size must be a multiple of num_heads = 5"):
        dataclasses.replace(SIZES, num_heads=5)


def test_files_appear_whole(tmp_path):
    path = tmp_path / "one"
    path.write_bytes(b"before")
    with pytest.raises(RuntimeError), files.whole(path) as (part,):
        part.write_bytes(b"half")
        raise RuntimeError("interrupted")
    assert [one.name for one in tmp_path.iterdir()] == ["one"] and path.read_bytes() == b"before"
    with files.whole(path) as (part,):
        part.write_bytes(b"after")
        assert path.read_bytes() == b"before"
    assert path.read_bytes() == b"after" and len(list(tmp_path.iterdir())) == 1


def test_a_refusal_of_the_system_leaves_nothing(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(files.WriteFailed, match="could not write .*File too large; nothing"):
            with files.whole(tmp_path / "one") as (part,):
                part.write_bytes(bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_places_that_cannot_be_written_are_named(tmp_path):
    with pytest.raises(ValueError, match="there is no folder"):
        files.target(tmp_path / "no" / "file")
    with pytest.raises(ValueError, match="is a folder"):
        files.target(tmp_path)
