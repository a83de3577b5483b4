"""Decoders against their oracle: families, formats, caches, batches of all kinds, code paths, threads."""

import dataclasses

import numpy as np
import pytest

from oarlock import native
from oarlock.native import decoder, quant
from oarlock.native.adapters import Adapter, AdapterLayer, LowRank, Part
from oarlock.native.decoder import Cache, Decoder, Layer, Linear, Model, Norm, Rows
from oarlock.native.reference import decoder as reference

PATHS = native.info().paths
VOCAB, D, F, LENGTH = 37, 48, 80, 100


def build(format="fp32", heads=6, kv_heads=6, head_size=8, bias=False, experts=0, **options):
    """A random decoder of two layers."""
    rng = np.random.default_rng(0)

    def values(*shape, std=1.0):
        return (std * rng.standard_normal(shape)).astype(np.float32)

    def linear(inputs, outputs):
        weight = quant.Matrix.pack(values(inputs, outputs, std=inputs**-0.5), format=format)
        return Linear(weight=weight, bias=values(outputs, std=0.3) if bias else None)

    def norm():
        offset = values(D, std=0.1) if options.get("layer_norm") else None
        return Norm(weight=1 + values(D, std=0.1), bias=offset)

    gate = 2 if options.get("activation", "swiglu") == "swiglu" else 1

    def layer():
        parts = {"attention_norm": norm(), "feed_forward_norm": norm()}
        parts["qkv"] = linear(D, (heads + 2 * kv_heads) * head_size)
        parts["out"] = linear(heads * head_size, D)
        if experts:
            parts["router"] = quant.Matrix.pack(values(D, experts, std=0.3), format="fp32")
            pairs = [(linear(D, gate * F), linear(F, D)) for _ in range(experts)]
            return Layer(**parts, experts=tuple(pairs))
        return Layer(**parts, up=linear(D, gate * F), down=linear(F, D))

    table = quant.Matrix.pack(values(D, VOCAB), format=format)
    turned = options.pop("rotary", 0)
    if turned:
        angles = np.outer(np.arange(LENGTH), 100.0 ** -np.linspace(0, 1, turned // 2))
        options |= {"cos": np.cos(angles), "sin": np.sin(angles)}
    if options.pop("learned", False):
        options["positions"] = values(LENGTH, D)
    if options.pop("alibi", False):
        options["slopes"] = 2.0 ** -np.arange(1, heads + 1)
    if options.pop("normed_embedding", False):
        options["embedding_norm"] = norm()
    return Model(
        embedding=table,
        head=table,
        layers=(layer(), layer()),
        final_norm=norm(),
        heads=heads,
        kv_heads=kv_heads,
        head_size=head_size,
        intermediate=F,
        max_length=LENGTH,
        **options,
    )


FAMILIES = {
    "llama": {"rotary": 8, "kv_heads": 2},
    "qwen2": {"rotary": 8, "rotary_halves": True, "kv_heads": 3, "bias": True},
    "mistral": {"rotary": 16, "head_size": 16, "heads": 4, "kv_heads": 1, "window": 19},
    "gpt2": {"layer_norm": True, "activation": "gelu_tanh", "bias": True, "learned": True},
    "bloom": {
        "layer_norm": True,
        "activation": "gelu_tanh",
        "bias": True,
        "alibi": True,
        "normed_embedding": True,
    },
    "glm": {"rotary": 4, "kv_heads": 2},
    "relu": {"activation": "relu", "attention_scale": 0.2},
    "gelu": {"activation": "gelu", "head_size": 32, "heads": 3, "kv_heads": 3},
    "experts": {"rotary": 8, "experts": 5, "experts_per_token": 2},
    "many queries": {"rotary": 4, "head_size": 4, "heads": 24, "kv_heads": 2},
}
TOKENS = np.random.default_rng(1).integers(0, VOCAB, 41)


def whole(model, tokens, cache_format="fp32", threads=1, base=False, hidden=False, adapter=None):
    """Results of all tokens of one sequence in one call."""
    made = Decoder(model, most_rows=len(tokens))
    cache = Cache(made, pages=8, format=cache_format)
    number = -1 if adapter is None else made.load_adapter(adapter)
    rows = Rows(tokens, 0, [5, 1, 7, 2], adapter=number)
    everything = np.arange(len(tokens))
    return decoder._forward(made, cache, [rows], everything, hidden, base, threads)


@pytest.mark.parametrize("family", FAMILIES)
def test_families_agree_with_the_oracle(family):
    model = build(**FAMILIES[family])
    wanted = reference.forward(model, TOKENS)
    for path in PATHS:
        with native.forced_path(path):
            found = [whole(model, TOKENS, threads=threads) for threads in (1, 3)]
        np.testing.assert_allclose(found[0], wanted, rtol=2e-4, atol=2e-4, err_msg=path)
        assert found[0].tobytes() == found[1].tobytes()


@pytest.mark.parametrize("format,allowed", [("bf16", 1e-3), ("int8", 0.02), ("int4", 0.02)])
def test_formats_of_weights(format, allowed):
    """Rounding of rows may fall to either side, and goes on from layer to layer."""
    model = build(format, rotary=8, kv_heads=2, activation="gelu", bias=True)
    wanted = reference.forward(model, TOKENS)
    for path in PATHS:
        with native.forced_path(path):
            for base in (False, True):
                found = whole(model, TOKENS, base=base)
                assert np.abs(found - wanted).max() < allowed * wanted.std(), (path, base)


@pytest.mark.parametrize("format,allowed", [("bf16", 0.03), ("int8", 0.05)])
@pytest.mark.parametrize("family", ["llama", "bloom", "many queries"])
def test_formats_of_the_cache(family, format, allowed):
    model = build(**FAMILIES[family])
    exact = whole(model, TOKENS)
    for path in PATHS:
        with native.forced_path(path):
            found = whole(model, TOKENS, format)
        assert 0 < np.abs(found - exact).max() < allowed * exact.std(), path


@pytest.mark.parametrize("cache_format", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("weights", ["fp32", "int8", "int4"])
@pytest.mark.parametrize("family", ["llama", "mistral", "bloom", "experts"])
def test_bits_do_not_depend_on_the_batch(family, weights, cache_format):
    """Prompts whole, in parts, token by token, and beside others: the same bits."""
    model = build(weights, **FAMILIES[family])
    made = Decoder(model, most_rows=64)
    rng = np.random.default_rng(2)
    texts = [rng.integers(0, VOCAB, length) for length in (41, 17, 5)]
    pages = [[0, 3, 6], [1, 4], [2]]
    alone = [whole(model, text, cache_format) for text in texts]
    for cuts in ([[41], [17], [5]], [[7, 34], [16, 1], [2, 3]], [[1] * 41, [1] * 17, [1] * 5]):
        cache, done = Cache(made, 8, cache_format), [0, 0, 0]
        for step in range(max(map(len, cuts))):
            rows, owners = [], []
            for i, text in enumerate(texts):
                if step < len(cuts[i]):
                    part = text[done[i] : done[i] + cuts[i][step]]
                    rows.append(Rows(part, done[i], pages[i]))
                    owners += [(i, done[i] + j) for j in range(len(part))]
                    done[i] += len(part)
            found = made.forward(cache, rows, wanted=np.arange(len(owners)), threads=2)
            for result, (i, place) in zip(found, owners):
                assert result.tobytes() == alone[i][place].tobytes(), (cuts[i], i, place)


def test_pages_can_be_shared_and_copied():
    model = build(**FAMILIES["llama"])
    made = Decoder(model, most_rows=64)
    cache = Cache(made, pages=6)
    text, other = TOKENS[:20], TOKENS[21:30]
    made.forward(cache, [Rows(text, 0, [0, 1])], wanted=[])
    cache.copy_page(1, 4)
    second = Rows(other, 20, [0, 4])  # the first page is shared, the second has been copied
    first = Rows(TOKENS[20:24], 20, [0, 1])
    found = made.forward(cache, [first, second], wanted=[3, 12])
    np.testing.assert_array_equal(found[0], whole(model, TOKENS[:24])[-1])
    np.testing.assert_array_equal(found[1], whole(model, np.r_[text, other])[-1])


def test_states_before_the_head():
    model = build(**FAMILIES["gpt2"])
    states, logits = whole(model, TOKENS, hidden=True), whole(model, TOKENS)
    np.testing.assert_allclose(states @ model.head.dequantize(), logits, rtol=1e-4, atol=1e-4)


def test_a_nan_stays_in_its_sequence():
    model = build(**FAMILIES["llama"])
    table = model.embedding.dequantize().copy()
    table[:, 3] = np.nan
    model = dataclasses.replace(model, embedding=quant.Matrix.pack(table, format="fp32"))
    made = Decoder(model, most_rows=8)
    cache = Cache(made, pages=2)
    rows = [Rows([1, 3], 0, [0]), Rows([1, 2], 0, [1])]
    found = made.forward(cache, rows, wanted=[0, 1, 2, 3])
    assert np.isnan(found[1]).all() and np.isfinite(found[[2, 3]]).all()


def test_bad_calls_are_refused_and_change_nothing():
    model = build(**FAMILIES["llama"])
    made = Decoder(model, most_rows=8)
    cache = Cache(made, pages=2)
    made.forward(cache, [Rows([1, 2], 0, [0])], wanted=[])
    before = cache._memory.copy()
    for rows, wanted, message in (
        ([Rows([VOCAB], 0, [0])], [0], r"tokens must be in \[0, 37\), not 37"),
        ([Rows([-1], 0, [0])], [0], r"tokens must be in \[0, 37\), not -1"),
        ([Rows([1], LENGTH, [0] * 7)], [0], "reaches position 101, but max_length is 100"),
        ([Rows([1], 16, [0])], [0], "fewer pages than it fills"),
        ([Rows([1], 0, [2])], [0], r"pages must be in \[0, 2\), not 2"),
        ([Rows([1] * 9, 0, [0])], [0], "between 1 and 8 rows, not 9"),
        ([Rows([1], 0, [0])], [1], "a wanted row is not in the batch"),
        ([Rows([], 0, [0])], [], "between 1 and 8 rows, not 0"),
        ([], [], "between 1 and 8 rows, not 0"),
    ):
        with pytest.raises(ValueError, match=message):
            made.forward(cache, rows, wanted=wanted)
    assert cache._memory.tobytes() == before.tobytes()
    with pytest.raises(ValueError, match="made for another decoder"):
        Decoder(build(rotary=16, head_size=16, heads=4, kv_heads=2), 8).forward(
            cache, [Rows([1], 0, [0])], wanted=[]
        )
    with pytest.raises(ValueError, match="format must be one of fp32, bf16, int8"):
        Cache(made, 2, "int4")
    with pytest.raises(ValueError, match=r"target must be in \[0, 2\), not 2"):
        cache.copy_page(0, 2)


def test_models_that_do_not_fit_are_refused():
    model = build(**FAMILIES["llama"])
    layer = model.layers[0]
    for change, message in (
        ({"heads": 5}, "heads must be a multiple of kv_heads"),
        ({"intermediate": 81}, r"up of layer 0 is \[48, 160\], but must be \[48, 162\]"),
        ({"activation": "gelu"}, r"up of layer 0 is \[48, 160\], but must be \[48, 80\]"),
        ({"activation": "tanh"}, "activation must be one of"),
        ({"sin": None}, "cos and sin must be given"),
        ({"positions": np.zeros((3, D), np.float32)}, r"positions has shape \(3, 48\)"),
        ({"layers": (dataclasses.replace(layer, down=None),)}, "down of layer 0 is missing"),
        ({"layers": ()}, "sizes of the model must be positive"),
        (
            {"final_norm": Norm(weight=np.ones(D), bias=np.ones(D))},
            "final_norm must have no bias without layer_norm",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            Decoder(dataclasses.replace(model, **change), 8)
    with pytest.raises(ValueError, match="most_rows must be positive"):
        Decoder(model, 0)


def draw_adapter(model, seed, ranks, format="fp32"):
    """Changes of products with two parts each, the second of which begins at an odd column; some products have none."""
    rng = np.random.default_rng(seed)

    def change(linear, odd):
        inputs, outputs = linear.weight.inputs, linear.weight.outputs
        parts = []
        for (first, last), r in zip(((0, outputs // 2), (outputs // 2 + odd, outputs)), ranks):
            a = rng.standard_normal((inputs, r)) * inputs**-0.5
            b = 0.5 * rng.standard_normal((r, last - first)) * r**-0.5
            parts.append((a, b, first))
        return LowRank.pack(parts, format=format)

    layers = []
    for i, layer in enumerate(model.layers):
        changes = {"out": change(layer.out, 1)}
        if i == 0:
            changes["qkv"] = change(layer.qkv, 3)
        if layer.experts:
            pairs = [(change(up, 0), change(down, 5)) for up, down in layer.experts]
            changes["experts"] = ((None, None), *pairs[1:])
        else:
            changes |= {"up": change(layer.up, 7), "down": change(layer.down, 0)}
        layers.append(AdapterLayer(**changes))
    return Adapter(layers=tuple(layers))


@pytest.mark.parametrize("format,allowed", [("fp32", 2e-4), ("bf16", 1e-3)])
@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_agree_with_the_oracle(family, format, allowed):
    model = build(**FAMILIES[family])
    adapter = draw_adapter(model, 4, (5, 33), format)
    wanted = reference.forward(model, TOKENS, adapter)
    assert np.abs(wanted - reference.forward(model, TOKENS)).max() > 0.3
    for path in PATHS:
        with native.forced_path(path):
            found = [whole(model, TOKENS, threads=n, adapter=adapter) for n in (1, 3)]
        np.testing.assert_allclose(found[0], wanted, rtol=allowed, atol=allowed, err_msg=path)
        assert found[0].tobytes() == found[1].tobytes()


def test_an_adapter_of_more_ranks_than_the_model_is_wide():
    model = build(**FAMILIES["llama"])
    adapter = draw_adapter(model, 4, (500, 300))
    found = whole(model, TOKENS, adapter=adapter)
    np.testing.assert_allclose(found, reference.forward(model, TOKENS, adapter), rtol=1e-3, atol=1e-3)  # fmt: skip


@pytest.mark.parametrize("family", ["llama", "experts"])
@pytest.mark.parametrize("weights", ["fp32", "int4"])
def test_an_adapter_is_a_change_of_weights(family, weights):
    """The model with a b added to its weights, where they are float32; beside rounded ones not far."""
    model = build(weights, **FAMILIES[family])
    adapter = draw_adapter(model, 5, (2, 3))
    layers = []
    for layer, change in zip(model.layers, adapter.layers):
        merged = {name: _merged(getattr(layer, name), getattr(change, name)) for name in ("qkv", "out", "up", "down")}  # fmt: skip
        pairs = [
            tuple(map(_merged, pair, both)) for pair, both in zip(layer.experts, change.experts)
        ]
        layers.append(dataclasses.replace(layer, **merged, experts=tuple(pairs)))
    merged = whole(dataclasses.replace(model, layers=tuple(layers)), TOKENS)
    found = whole(model, TOKENS, adapter=adapter)
    if weights == "fp32":
        np.testing.assert_allclose(found, merged, rtol=1e-4, atol=1e-4)
    else:  # rows of the merged model are not rounded
        assert np.abs(found - merged).mean() < 0.05 * merged.std()


def _merged(linear, change):
    if linear is None or change is None:
        return linear
    weight = linear.weight.dequantize().copy()
    for part in change.parts:
        a = change.a.dequantize()[:, part.rank : part.rank + part.b.inputs]
        weight[:, part.first : part.first + part.b.outputs] += a @ part.b.dequantize()
    return Linear(weight=quant.Matrix.pack(weight, format="fp32"), bias=linear.bias)


@pytest.mark.parametrize("family", ["llama", "bloom", "experts"])
@pytest.mark.parametrize("weights", ["fp32", "int8"])
def test_bits_of_adapters_do_not_depend_on_the_batch(family, weights):
    """Texts with and without adapters beside each other, whole and in parts: the bits of each alone."""
    model = build(weights, **FAMILIES[family])
    made = Decoder(model, most_rows=100)
    two = draw_adapter(model, 6, (4, 7)), draw_adapter(model, 7, (40, 1), "bf16")
    numbers = [made.load_adapter(one) for one in two]
    rng = np.random.default_rng(2)
    texts = [rng.integers(0, VOCAB, length) for length in (7, 33, 5, 1, 17)]
    chosen = [None, 0, 1, 1, 0]
    pages = [[0], [1, 2, 3], [4], [5], [6, 7]]
    alone = [
        whole(model, text, adapter=None if one is None else two[one])
        for text, one in zip(texts, chosen)
    ]
    for size in (100, 4, 1):
        cache, done = Cache(made, 8), [0] * len(texts)
        while any(at < len(text) for at, text in zip(done, texts)):
            rows, owners = [], []
            for i, text in enumerate(texts):
                part = text[done[i] : done[i] + size]
                if len(part):
                    number = -1 if chosen[i] is None else numbers[chosen[i]]
                    rows.append(Rows(part, done[i], pages[i], adapter=number))
                    owners += [(i, done[i] + j) for j in range(len(part))]
                    done[i] += len(part)
            found = made.forward(cache, rows, wanted=np.arange(len(owners)), threads=2)
            for result, (i, place) in zip(found, owners):
                assert result.tobytes() == alone[i][place].tobytes(), (size, i, place)


def test_adapters_come_and_go():
    model = build(**FAMILIES["llama"])
    made = Decoder(model, most_rows=8)
    cache = Cache(made, pages=1)

    def run(number):
        return made.forward(cache, [Rows([1, 2], 0, [0], adapter=number)], wanted=[1]).tobytes()

    plain, seen = run(-1), set()
    for seed in range(3):
        number = made.load_adapter(draw_adapter(model, seed, (2, 2)))
        assert number not in seen
        seen.add(number)
        assert run(number) != plain == run(-1)
        made.unload_adapter(number)
        with pytest.raises(ValueError, match=f"there is no adapter {number}"):
            run(number)
        with pytest.raises(ValueError, match=f"there is no adapter {number}"):
            made.unload_adapter(number)
    assert run(-1) == plain


def test_adapters_that_do_not_fit_are_refused():
    model, experts = build(**FAMILIES["llama"]), build(**FAMILIES["experts"])
    layer, none = draw_adapter(model, 0, (2, 2)).layers[0], AdapterLayer()
    short = quant.Matrix.pack(np.ones((47, 4), "f4"), format="fp32")
    coded = quant.Matrix.pack(np.ones((48, 4), "f4"), format="int8")
    b = layer.qkv.parts[0].b
    late = Part(b=b, rank=0, first=model.layers[0].qkv.weight.outputs - b.outputs + 1)
    deep = Part(b=b, rank=3, first=0)
    for target, layers, message in (
        (model, (none,), "adapter must have 2 layers, not 1"),
        (model, (none, dataclasses.replace(layer, qkv=LowRank(a=short, parts=()))), "a of the adapter's qkv of layer 1 must have 48 inputs, not 47"),
        (model, (dataclasses.replace(layer, qkv=LowRank(a=coded, parts=())), none), "must be float32 or bfloat16"),
        (model, (dataclasses.replace(layer, qkv=LowRank(a=layer.qkv.a, parts=(late,))), none), "reaches column 81 of 80"),
        (model, (dataclasses.replace(layer, qkv=LowRank(a=layer.qkv.a, parts=(deep,))), none), "more ranks than a"),
        (model, (dataclasses.replace(layer, experts=((None, None),)), none), "must have 0 experts, not 1"),
        (experts, (AdapterLayer(up=layer.up), none), "the model has experts in place of up and down"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            Decoder(target, 8).load_adapter(Adapter(layers=layers))
    with pytest.raises(ValueError, match=r"must fit, not \(3, 2\) and \(3, 4\)"):
        LowRank.pack([(np.ones((3, 2)), np.ones((3, 4)), 0)])
