"""The CUDA kernels of a decoder against the oracle and the CPU: on an emulator, and where one is on a GPU."""

import dataclasses
import math

import numpy as np
import pytest
from native.tests.test_decoder import FAMILIES, TOKENS, build  # pants: no-infer-dep
from native.tests.test_quant import numbers  # pants: no-infer-dep
from native.tests.util_cuda_lowp import BFLOAT16, Emulator  # pants: no-infer-dep
from native.tests.util_cuda_lowp import compile_for_cpu  # pants: no-infer-dep
from native.tests.util_gpu import Gpu, needs_gpu  # pants: no-infer-dep

from oarlock.native import decoder, decoder_cuda, quant_cuda
from oarlock.native.decoder_cuda import Batch, Heads
from oarlock.native.reference import decoder as reference

PAGE = decoder.PAGE
DTYPES = {"fp32": np.dtype(np.float32), "bf16": BFLOAT16, "int8": np.dtype(np.int8)}
each_cache = pytest.mark.parametrize("cache_format", list(DTYPES))


@pytest.fixture(scope="module")
def emulator(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cuda_on_cpu")
    return Emulator(compile_for_cpu(folder, "quant", "decoder"))


@pytest.fixture(params=["emulator", pytest.param("gpu", marks=needs_gpu)])
def place(request):
    if request.param == "gpu":
        return Gpu()
    found = request.getfixturevalue("emulator")
    found.set()
    return found


def batch_of(place, sequences):
    """Of (start, count, pages) of each sequence."""
    starts, counts = ([one[i] for one in sequences] for i in (0, 1))
    most = max(len(one[2]) for one in sequences)
    pages = [[*one[2], *[-1] * (most - len(one[2]))] for one in sequences]
    owners = np.repeat(np.arange(len(counts)), counts)
    arrays = (pages, starts, counts, np.cumsum([0, *counts[:-1]]), owners)
    return Batch(
        **dict(zip(decoder_cuda._POINTERS, (place.put(np.int32(one)) for one in arrays))),
        least_rows=min(counts),
        most_rows=max(counts),
        most_length=max(start + count for start, count, _ in sequences),
    )


def in_pages(memory, heads, layer, pages):
    """Keys and values [positions, kv_heads, head_size] of a layer, from the bytes of pages."""
    K, dtype = heads.head_size, DTYPES[heads.cache_format]
    size = 2 * PAGE * K * dtype.itemsize
    scaled = heads.cache_format == "int8"
    parts = memory.reshape(len(memory), heads.layers, heads.kv_heads, -1)[pages, layer]
    items = np.ascontiguousarray(parts[..., :size]).view(dtype).astype(np.float32)
    keys, values = items.reshape(*items.shape[:2], 2, -1).transpose(2, 0, 1, 3)
    keys = keys.reshape(*keys.shape[:2], K, PAGE).transpose(0, 3, 1, 2)
    values = values.reshape(*values.shape[:2], PAGE, K).transpose(0, 2, 1, 3)
    if scaled:
        scales = np.ascontiguousarray(parts[..., size:]).view(np.float32)
        scales = scales.reshape(*scales.shape[:2], 2, PAGE).transpose(2, 0, 3, 1)[..., None]
        keys, values = keys * scales[0], values * scales[1]
    return (x.reshape(-1, heads.kv_heads, K) for x in (keys, values))


def forget(memory, heads, page, place):
    """Make what a page holds from a place on NaN."""
    K, size = heads.head_size, PAGE * heads.head_size * DTYPES[heads.cache_format].itemsize
    parts = memory[page].reshape(heads.layers * heads.kv_heads, -1)
    parts[:, :size].reshape(len(parts), K, PAGE, -1)[:, :, place:] = 0xFF
    parts[:, size : 2 * size].reshape(len(parts), PAGE, -1)[:, place:] = 0xFF
    if heads.cache_format == "int8":
        parts[:, 2 * size :].reshape(len(parts), 2, PAGE, -1)[:, :, place:] = 0xFF


def oracle(queries, start, keys, values, heads, slopes):
    """Attention of rows [rows, heads, head_size] from position `start` on, in float64."""
    out = np.empty(queries.shape)
    scale = heads.head_size**-0.5 if heads.scale is None else heads.scale
    for i, row in enumerate(queries.astype(np.float64)):
        here = start + i
        first = 0 if heads.window is None else max(0, here - heads.window + 1)
        for h in range(heads.heads):
            g = h // (heads.heads // heads.kv_heads)
            scores = scale * keys[first : here + 1, g] @ row[h]
            if slopes is not None:
                scores = scores + slopes[h] * (np.arange(first, here + 1) - here)
            out[i, h] = reference.softmax(scores) @ values[first : here + 1, g]
    return out


def attended(place, heads, sequences, seed=0, dtype=np.float32, slopes=None):
    """Random rows and pages: what attention gives, and should. What nobody has written holds NaN."""
    rng = np.random.default_rng(seed)
    with place.active():
        page_bytes = heads.page_bytes()
    count = 1 + max(max(one[2]) for one in sequences)
    memory = np.full((count, page_bytes), 0xFF, np.uint8)  # NaN of each format, or -1 times it
    layer = heads.layers - 1
    for start, count, pages in sequences:
        used = [page for page in pages if page >= 0]
        if heads.cache_format == "int8":
            fresh = memory[used].reshape(len(used), heads.layers, heads.kv_heads, -1)
            size = 2 * PAGE * heads.head_size
            fresh[..., :size] = (
                rng.integers(-127, 128, fresh[..., :size].shape).view(np.uint64) & 0xFF
            )
            scales = rng.random((*fresh.shape[:3], 2 * PAGE)).astype(np.float32) / 64
            fresh[..., size:] = scales.view(np.uint8)
            memory[used] = fresh.reshape(len(used), -1)
        else:
            dtype_of = DTYPES[heads.cache_format]
            values = rng.standard_normal((len(used), page_bytes // dtype_of.itemsize))
            memory[used] = values.astype(np.float32).astype(dtype_of).view(np.uint8)
        if (start + count) % PAGE:
            forget(memory, heads, pages[(start + count) // PAGE], (start + count) % PAGE)
    rows = sum(one[1] for one in sequences)
    width = (heads.heads + 2 * heads.kv_heads) * heads.head_size
    qkv = rng.standard_normal((rows, width)).astype(np.float32).astype(dtype)
    with place.active():
        batch = batch_of(place, sequences)
        out = place.put(np.full((rows, heads.heads * heads.head_size), np.nan, dtype))
        given = None if slopes is None else place.put(np.float32(slopes))
        decoder_cuda.attend(
            place.put(qkv), place.put(memory), batch, heads, layer, out, slopes=given
        )
        found = place.get(out).astype(np.float32).reshape(rows, heads.heads, -1)
    wanted, at = [], 0
    for start, count, pages in sequences:
        used = np.maximum(pages, 0)  # pages before a window are not looked at
        keys, values = in_pages(memory, heads, layer, used)
        some = qkv[at : at + count].astype(np.float32)[:, : heads.heads * heads.head_size]
        some = some.reshape(count, heads.heads, -1)
        wanted.append(oracle(some, start, keys, values, heads, slopes))
        at += count
    return found, np.concatenate(wanted)


# Sequences as (start, rows, pages): one row, a few, parts of prompts and whole ones.
DECODING = [(0, 1, [4]), (15, 1, [0]), (40, 3, [2, 7, 1]), (299, 1, [*range(8, 27)])]
PROMPTS = [(0, 9, [3]), (37, 30, [0, 5, 1, 7, 2]), (60, 70, [*range(8, 17)])]
SHAPES = [
    {"heads": 4, "kv_heads": 4, "head_size": 64},
    {"heads": 6, "kv_heads": 2, "head_size": 8},
    {"heads": 6, "kv_heads": 1, "head_size": 128},
    {"heads": 2, "kv_heads": 1, "head_size": 80},
    {"heads": 1, "kv_heads": 1, "head_size": 256},
]


@each_cache
@pytest.mark.parametrize("shape", SHAPES, ids=lambda one: "-".join(map(str, one.values())))
def test_decoding_agrees_with_the_oracle(place, shape, cache_format):
    heads = Heads(layers=2, cache_format=cache_format, **shape)
    found, wanted = attended(place, heads, DECODING)
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-5)


@each_cache
@pytest.mark.parametrize("shape", SHAPES, ids=lambda one: "-".join(map(str, one.values())))
def test_prompts_agree_with_the_oracle(place, shape, cache_format):
    heads = Heads(layers=2, cache_format=cache_format, **shape)
    found, wanted = attended(place, heads, PROMPTS)
    # Queries and weights are rounded to bfloat16, but for pages of float32.
    limit = 2e-5 if cache_format == "fp32" else 2e-2 * np.abs(wanted).max()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=limit)


@each_cache
@pytest.mark.parametrize("options", [{"window": 19}, {"window": 1}, {"scale": 0.3}], ids=str)
@pytest.mark.parametrize("sequences", [DECODING, PROMPTS, DECODING + PROMPTS], ids=len)
def test_windows_scales_slopes_and_mixed_batches(place, sequences, options, cache_format):
    heads = Heads(layers=1, heads=4, kv_heads=2, head_size=16, cache_format=cache_format, **options)
    if "window" in options:  # pages that nobody sees any more are given back
        window = options["window"]
        sequences = [
            (start, count, [p if (i + 1) * PAGE > start - window + 1 else -1 for i, p in enumerate(pages)])
            for start, count, pages in sequences
        ]  # fmt: skip
    slopes = [0.5, 0.25, 0.1, 0.0]
    found, wanted = attended(place, heads, sequences, slopes=slopes)
    limit = 2e-5 if cache_format == "fp32" else 2e-2
    np.testing.assert_allclose(found, wanted, rtol=0, atol=limit)
    narrow, wanted = attended(place, heads, sequences, dtype=BFLOAT16)
    np.testing.assert_allclose(narrow, wanted, rtol=2e-2, atol=2e-2)


@each_cache
def test_bits_of_attention_do_not_depend_on_the_batch(place, cache_format):
    heads = Heads(layers=1, heads=2, kv_heads=1, head_size=16, cache_format=cache_format)
    with place.active():
        page_bytes = heads.page_bytes()
    rng = np.random.default_rng(0)
    dtype = BFLOAT16 if cache_format == "bf16" else np.float32  # bytes of any numbers are codes too
    memory = rng.standard_normal((30, page_bytes // np.dtype(dtype).itemsize))
    memory = memory.astype(np.float32).astype(dtype).view(np.uint8)
    qkv = rng.standard_normal((270, 4 * 16)).astype(np.float32)
    pages = [list(range(20)), list(range(20, 30))]

    def run(parts):
        """Of (sequence, start, count): the results by (sequence, position)."""
        rows = np.concatenate([qkv[start : start + count] * (1 + s) for s, start, count in parts])
        with place.active():
            batch = batch_of(place, [(start, count, pages[s]) for s, start, count in parts])
            out = place.put(np.full((len(rows), 32), np.nan, np.float32))
            decoder_cuda.attend(place.put(rows), place.put(memory), batch, heads, 0, out)
            found = place.get(out)
        keys = [(s, start + i) for s, start, count in parts for i in range(count)]
        return dict(zip(keys, (row.tobytes() for row in found)))

    whole = run([(0, 0, 270), (1, 40, 50)])
    for parts in ([(0, 0, 100), (1, 40, 20)], [(0, 100, 170)], [(1, 60, 30), (0, 30, 41)]):
        for key, bits in run(parts).items():
            assert bits == whole[key], key
    alone = run([(0, 269, 1)])
    beside = run([(1, 80, 1), (0, 267, 3)])
    assert alone[0, 269] == beside[0, 269]


@pytest.mark.parametrize("dtype", [np.dtype(np.float32), BFLOAT16], ids=str)
@pytest.mark.parametrize("halves", [False, True])
@each_cache
def test_storing_turns_and_rounds(place, cache_format, halves, dtype):
    """Bits of queries and of the pages, which are the oracle's in the order of the CPU's operations."""
    heads = Heads(layers=3, heads=4, kv_heads=2, head_size=40, rotary=24, rotary_halves=halves,
                  cache_format=cache_format)  # fmt: skip
    sequences = [(14, 5, [2, 0]), (0, 1, [1])]
    qkv = numbers(6, 8 * 40).astype(dtype)
    angles = np.outer(np.arange(20), 10.0 ** -np.linspace(0, 2, 12))
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    with place.active():
        memory = place.put(np.zeros((3, heads.page_bytes()), np.uint8))
        given = place.put(qkv)
        batch = batch_of(place, sequences)
        tables = {"cos": place.put(cos), "sin": place.put(sin)}
        decoder_cuda.store(given, memory, batch, heads, 1, **tables)
        found, memory = place.get(given), place.get(memory)
    wanted = qkv.astype(np.float32).reshape(6, 8, 40)
    at = np.array([14, 15, 16, 17, 18, 0])
    c, s = cos[at, None], sin[at, None]
    first = np.arange(12) if halves else 2 * np.arange(12)
    second = first + (12 if halves else 1)
    a, b = wanted[:, :6, first], wanted[:, :6, second]
    turned = wanted.copy()
    turned[:, :6, first], turned[:, :6, second] = a * c - b * s, a * s + b * c
    assert found.reshape(6, 8, 40)[:, :4].tobytes() == turned[:, :4].astype(dtype).tobytes()
    assert found.reshape(6, 8, 40)[:, 4:].tobytes() == qkv.reshape(6, 8, 40)[:, 4:].tobytes()
    places = [(0, 14), (0, 15), (1, 0), (1, 1), (1, 2)]
    for pages, rows in (([2, 0], range(5)), ([1], [5])):
        stored = list(in_pages(memory, heads, 1, np.array(pages)))
        for row in rows:
            number, inside = places[row] if row < 5 else (0, 0)
            for kind, kept in zip((turned[row, 4:6], turned[row, 6:]), stored):
                got = kept[number * PAGE + inside]
                if cache_format == "int8":
                    scale = np.abs(kind).max(-1, keepdims=True) / np.float32(127)
                    codes = np.rint(kind * (np.float32(127) / np.abs(kind).max(-1, keepdims=True)))
                    np.testing.assert_allclose(got, codes * scale, rtol=1e-6)
                else:
                    assert (
                        got.tobytes()
                        == kind.astype(DTYPES[cache_format]).astype(np.float32).tobytes()
                    )
    others = memory.reshape(3, 3, -1)
    assert not others[:, [0, 2]].any() and others[:, 1].any()


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (3, 70), (9, 264), (2, 2500)], ids=str)
def test_norms(place, shape, layer_norm):
    x, weight, bias = numbers(*shape) + 1, numbers(shape[1], seed=1), numbers(shape[1], seed=2)
    y = x.astype(np.float64)
    y = y - y.mean(-1, keepdims=True) if layer_norm else y
    y = y / np.sqrt(np.square(y).mean(-1, keepdims=True) + 1e-5) * weight
    wanted = y + bias if layer_norm else y
    for dtype, limit in ((np.float32, 2e-5), (BFLOAT16, 1e-2)):
        with place.active():
            given = {"weight": place.put(weight), "epsilon": 1e-5, "layer_norm": layer_norm}
            given["bias"] = place.put(bias) if layer_norm else None
            tensor, out = place.put(x), place.put(np.full(shape, np.nan, dtype))
            rows = quant_cuda.Rows.empty(tensor, *shape)
            decoder_cuda.norm(tensor, out=out, rows=rows, **given)
            found = place.get(out).astype(np.float32)
            same = quant_cuda.encode(place.put(found))
            if dtype == np.float32:
                assert place.get(rows.bricks).tobytes() == place.get(same.bricks).tobytes()
            decoder_cuda.norm(tensor, rows=rows, **given)
        scale = np.abs(wanted).max()
        np.testing.assert_allclose(found, wanted, rtol=limit, atol=limit * scale)


@pytest.mark.parametrize("activation", ["swiglu", "gelu_tanh", "gelu", "relu"])
@pytest.mark.parametrize("columns", [1, 64, 75])
def test_activations(place, columns, activation):
    width = 2 * columns if activation == "swiglu" else columns
    x = 3 * numbers(9, width)
    if activation == "gelu":  # math.erf takes one number at a time
        wanted = x * np.vectorize(lambda v: 0.5 * (1 + math.erf(v / math.sqrt(2))))(x)
    else:
        wanted = reference.activate(x.astype(np.float64), activation)
    with place.active():
        tensor, out = place.put(x), place.put(np.full((9, columns), np.nan, np.float32))
        rows = quant_cuda.Rows.empty(tensor, 9, columns)
        decoder_cuda.activate(tensor, activation, out=out, rows=rows)
        found = place.get(out)
        same = quant_cuda.encode(place.put(found))
        assert place.get(rows.bricks).tobytes() == place.get(same.bricks).tobytes()
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


class OnDevice:
    """A whole decoder out of these steps, as an engine would call them; pages are the CPU's."""

    def __init__(self, place, model, cache_format):
        self.place, self.model = place, model
        rotary = 0 if model.cos is None else 2 * np.shape(model.cos)[-1]
        self.heads = Heads(
            layers=len(model.layers), heads=model.heads, kv_heads=model.kv_heads,
            head_size=model.head_size, cache_format=cache_format, rotary=rotary,
            rotary_halves=model.rotary_halves, window=model.window, scale=model.attention_scale,
        )  # fmt: skip
        with place.active():
            self.weights = {
                id(one): quant_cuda.Matrix.arrange(one, place.put(one.packed))
                for one in model.matrices()
            }
            self.tables = {}
            if rotary:
                self.tables = {
                    name: place.put(np.float32(getattr(model, name))) for name in ("cos", "sin")
                }

    def product(self, rows, weight, out, bias=None, accumulate=False):
        bias = None if bias is None else self.place.put(bias)
        quant_cuda.matmul(rows, self.weights[id(weight)], out, bias=bias, accumulate=accumulate)

    def normed(self, x, one):
        rows = quant_cuda.Rows.empty(x, *x.shape)
        bias = None if one.bias is None else self.place.put(one.bias)
        decoder_cuda.norm(x, self.place.put(one.weight), bias=bias, epsilon=self.model.epsilon,
                          layer_norm=self.model.layer_norm, rows=rows)  # fmt: skip
        return rows

    def forward(self, memory, tokens, start, pages):
        """Logits of the rows; memory is that of the pages on the CPU, and gets the new keys and values."""
        model, place, T = self.model, self.place, len(tokens)
        x = model.embedding.rows(tokens)
        if model.positions is not None:
            x = x + model.positions[start : start + T]
        with place.active():
            cache, x = place.put(memory), place.put(x.astype(np.float32))
            batch = batch_of(place, [(start, T, pages)])
            for number, layer in enumerate(model.layers):
                qkv = self.new(T, layer.qkv.weight.outputs)
                self.product(
                    self.normed(x, layer.attention_norm), layer.qkv.weight, qkv, layer.qkv.bias
                )
                decoder_cuda.store(qkv, cache, batch, self.heads, number, **self.tables)
                out = self.new(T, model.heads * model.head_size)
                slopes = None if model.slopes is None else place.put(np.float32(model.slopes))
                decoder_cuda.attend(qkv, cache, batch, self.heads, number, out, slopes=slopes)
                self.product(quant_cuda.encode(out), layer.out.weight, x, layer.out.bias, True)
                up = self.new(T, layer.up.weight.outputs)
                self.product(
                    self.normed(x, layer.feed_forward_norm), layer.up.weight, up, layer.up.bias
                )
                rows = quant_cuda.Rows.empty(x, T, model.intermediate)
                decoder_cuda.activate(up, model.activation, rows=rows)
                self.product(rows, layer.down.weight, x, layer.down.bias, True)
            logits = self.new(T, model.vocab)
            self.product(self.normed(x, model.final_norm), model.head, logits)
            memory[...] = place.get(cache)
            return place.get(logits)

    def new(self, *shape):
        return self.place.put(np.full(shape, np.nan, np.float32))


@pytest.mark.parametrize("cache_format", ["fp32", "int8"])
@pytest.mark.parametrize("weights", ["int8", "int4"])
@pytest.mark.parametrize("family", ["llama", "qwen2", "mistral", "gpt2"])
def test_whole_decoders_agree_with_the_cpu(place, family, weights, cache_format):
    """A prompt and a token after it; and the CPU goes on from the pages that the device wrote."""
    model = build(weights, **FAMILIES[family])
    there = OnDevice(place, model, cache_format)
    made = decoder.Decoder(model, most_rows=64)
    cache, mine = (decoder.Cache(made, 4, cache_format) for _ in range(2))
    pages, last = [2, 0, 3], len(TOKENS) - 1
    rows = decoder.Rows(TOKENS[:last], 0, pages)
    wanted = made.forward(cache, [rows], wanted=np.arange(last))
    found = there.forward(mine._memory, TOKENS[:last], 0, pages)
    # A row's element that falls to the other side, and bfloat16 in prompts with pages of int8.
    limit = (0.02 if cache_format == "fp32" else 0.06) * wanted.std()
    assert np.abs(found - wanted).max() < limit
    step = [decoder.Rows(TOKENS[last:], last, pages)]
    wanted = made.forward(cache, step, wanted=[0])
    assert np.abs(made.forward(mine, step, wanted=[0]) - wanted).max() < limit
    found = there.forward(mine._memory, TOKENS[last:], last, pages)
    assert np.abs(found - wanted).max() < limit


def test_the_order_of_threads_changes_nothing(emulator):
    """Where a barrier is missing, one of the two orders reads too early."""
    for cache_format in DTYPES:
        heads = Heads(layers=1, heads=6, kv_heads=2, head_size=64, cache_format=cache_format)
        found = set()
        for backwards in (False, True):
            emulator.set(backwards=backwards)
            found.add(attended(emulator, heads, DECODING + PROMPTS[:2])[0].tobytes())
        assert len(found) == 1
    emulator.set()


def test_bad_arguments_are_named(place):
    heads = Heads(layers=2, heads=4, kv_heads=2, head_size=16)
    with place.active():
        batch = batch_of(place, [(0, 2, [0]), (3, 1, [1])])
        cache = place.put(np.zeros((2, heads.page_bytes()), np.uint8))
        qkv, out = place.put(np.zeros((3, 128), np.float32)), place.put(
            np.zeros((3, 64), np.float32)
        )
        attend, change = decoder_cuda.attend, dataclasses.replace
        cases = (
            (lambda: attend(out, cache, batch, heads, 0, out), r"qkv has shape \[3, 64\]"),
            (lambda: attend(qkv, cache, batch, heads, 2, out), r"layer must be in \[0, 2\), not 2"),
            (lambda: attend(qkv, cache, batch, heads, 0, qkv), r"out has shape \[3, 128\]"),
            (lambda: attend(qkv, cache, change(batch, most_length=17), heads, 0, out),
             "pages has 1 for each sequence, too few for 17 positions"),
            (lambda: attend(qkv, cache, batch, change(heads, head_size=20), 0, out),
             "head_size must be a multiple of 8 up to 256 on a GPU, not 20"),
            (lambda: attend(qkv, cache, batch, change(heads, kv_heads=3), 0, out),
             "heads must be a multiple of kv_heads, not 4 and 3"),
            (lambda: attend(qkv, cache, batch, change(heads, cache_format="int4"), 0, out),
             "cache_format must be one of fp32, bf16, int8, not 'int4'"),
            (lambda: attend(qkv, cache, change(batch, owners=batch.starts), heads, 0, out),
             r"owners has shape \[2\], but must be \[3\]"),
            (lambda: decoder_cuda.store(qkv, cache, batch, change(heads, rotary=8), 0),
             "cos and sin must be given where rotary is not 0"),
            (lambda: decoder_cuda.norm(qkv, out, epsilon=1e-5), "out or rows must be given"),
            (lambda: decoder_cuda.norm(qkv, out, epsilon=1e-5, out=out), r"weight has shape \[3, 64\]"),
            (lambda: decoder_cuda.activate(qkv, "tanh", out=out), "activation must be one of"),
        )  # fmt: skip
        for call, message in cases:
            with pytest.raises(ValueError, match=message):
                call()
