"""How models are cut: everything once, equal codes, plain refusals."""

import dataclasses

import numpy as np
import pytest

from oarlock.llm import loading
from oarlock.llm.engine import packing
from oarlock.llm.engine.sharding import Sizes, shards

SIZES = {
    "stories260K": Sizes(heads=8, kv_heads=4, head_size=8, intermediate=172, vocab=512),
    "7b": Sizes(heads=32, kv_heads=32, head_size=128, intermediate=11008, vocab=32000),
    "one head of keys": Sizes(heads=8, kv_heads=1, head_size=64, intermediate=4864, vocab=151936),
    "fourteen": Sizes(heads=14, kv_heads=2, head_size=64, intermediate=4864, vocab=151936),
}


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("name", SIZES)
def test_everything_is_somewhere_once_and_groups_stay_whole(name, ranks, grouped):
    sizes = SIZES[name]
    try:
        parts = shards(sizes, ranks, grouped=grouped)
    except ValueError as error:
        assert "ranks must be" in str(error)
        whole = sizes.kv_heads >= ranks or ranks % sizes.kv_heads == 0
        assert not whole or name == "stories260K"
        return
    group = sizes.heads // sizes.kv_heads
    for field, total in (
        ("queries", sizes.heads),
        ("inner", sizes.intermediate),
        ("words", sizes.vocab),
    ):
        taken = [i for one in parts for i in range(total)[getattr(one, field)]]
        assert taken == list(range(total))
    for one in parts:
        assert {h // group for h in range(sizes.heads)[one.queries]} == set(
            range(sizes.kv_heads)[one.keys]
        )
        assert one.words.start % 32 == 0
        if grouped:
            assert one.queries.start * sizes.head_size % 32 == 0 and one.inner.start % 32 == 0
    widths = [one.inner.stop - one.inner.start for one in parts]
    assert max(widths) - min(widths) <= (32 if grouped else 1) + sizes.intermediate % 32


def test_what_cannot_be_cut_is_refused_with_the_remedy():
    small = SIZES["stories260K"]
    with pytest.raises(ValueError, match="fewer than 4: 8 heads of 8 numbers, 4 of keys .* fp32"):
        shards(small, 4, grouped=True)
    with pytest.raises(ValueError, match="at most 2, the model's heads of keys, or a multiple"):
        shards(SIZES["fourteen"], 3, grouped=False)
    with pytest.raises(ValueError, match="feed-forward width of 40 cannot be cut"):
        wide = dataclasses.replace(small, head_size=32, intermediate=40)
        shards(wide, 4, grouped=True)
    with pytest.raises(ValueError, match="fewer than 16: 8 heads"):
        shards(small, 16, grouped=False)
    for ranks in (0, True, 1.5):
        with pytest.raises(ValueError, match="ranks must be a positive integer"):
            shards(small, ranks, grouped=False)


CASES = [
    ("llama", "fp32", 2),
    ("llama-q4_k_m.gguf", "fp32", 2),
    ("gpt2-q8_0.gguf", "int8", 1),
    ("bloom-q8_0.gguf", "fp32", 4),
    ("mixtral", "bf16", 2),
    ("chatglm", "fp32", 4),
    ("qwen2", "fp32", 2),
]


@pytest.mark.parametrize("name,weights,ranks", CASES)
def test_parts_put_together_are_the_whole(fixtures, name, weights, ranks):
    found = loading.load(fixtures / name)
    given = found.family, found.config, found.parameters
    whole = packing.pack(*given, weights=weights)
    parts = {s.rank: one for s, one in packing.parts(*given, ranks=ranks, weights=weights)}
    assert list(parts) == list(range(ranks))[::-1]
    put_together(whole, [parts[rank] for rank in range(ranks)], Sizes.of(found.config), ranks)
    assert packing.count(found.family, found.config) == sum(
        one.inputs * one.outputs for one in whole.matrices()
    )


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_codes_are_those_of_one_rank(small_model, weights):
    """Also where parts are of unequal width."""
    model = small_model(
        "llama", hidden_size=64, num_heads=4, num_kv_heads=2, intermediate_size=172, vocab_size=70
    )
    given = "llama", model.config, {name: one.numpy() for name, one in model.state_dict().items()}
    whole = packing.pack(*given, weights=weights)
    parts = {s.rank: one for s, one in packing.parts(*given, ranks=2, weights=weights)}
    assert [parts[rank].intermediate for rank in (0, 1)] == [96, 76]
    put_together(whole, [parts[0], parts[1]], Sizes.of(model.config), 2)


def put_together(whole, parts, sizes, ranks):
    """Compare a model with its parts, weights and biases."""
    K, G = sizes.head_size, sizes.kv_heads
    shared = max(1, ranks // G)  # ranks that have the same head of keys

    def weights(get, axis):
        return np.concatenate([get(one).weight.dequantize() for one in parts], axis)

    def check_rows(get):
        np.testing.assert_array_equal(weights(get, 0), get(whole).weight.dequantize())
        assert [get(one).bias is None for one in parts[1:]] == [True] * (ranks - 1)
        biases = [get(one).bias for one in (whole, parts[0])]
        assert biases[0] is biases[1] is None or (biases[0] == biases[1]).all()

    def check_columns(get, pieces, shared):
        """``pieces``: widths of what lies beside each other in a part; all but the first are at ``shared`` ranks."""
        for values in (lambda one: one.weight.dequantize(), lambda one: one.bias):
            if values(get(whole)) is None:
                assert all(values(get(one)) is None for one in parts)
                continue
            split = [np.split(values(get(p)), np.cumsum(pieces(p))[:-1], -1) for p in parts]
            joined = [
                np.concatenate(some[:: shared if i else 1], -1)
                for i, some in enumerate(zip(*split))
            ]
            np.testing.assert_array_equal(np.concatenate(joined, -1), values(get(whole)))

    head = np.concatenate([one.head.dequantize() for one in parts if one.head is not None], 1)
    np.testing.assert_array_equal(head, whole.head.dequantize())
    if whole.slopes is not None:
        np.testing.assert_array_equal(np.concatenate([p.slopes for p in parts]), whole.slopes)
    gate = 2 if whole.activation == "swiglu" else 1
    for i in range(len(whole.layers)):
        check_rows(lambda m: m.layers[i].out)
        check_columns(
            lambda m: m.layers[i].qkv,
            lambda p: [p.heads * K, p.kv_heads * K, p.kv_heads * K],
            shared,
        )
        for e in range(max(1, len(whole.layers[i].experts))):

            def pair(m):
                layer = m.layers[i]
                return layer.experts[e] if layer.experts else (layer.up, layer.down)

            check_rows(lambda m: pair(m)[1])
            check_columns(lambda m: pair(m)[0], lambda p: [p.intermediate] * gate, 1)
