"""Ranks in threads of this process and in processes of their own: sums, bits, decoders in parts, and losses."""

import contextlib
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from oarlock.native import adapters, quant
from oarlock.native.decoder import Cache, Decoder, Layer, Linear, Model, Norm, Rows
from oarlock.native.ranks import Ranks, shared_bytes, shared_file
from oarlock.native.reference import ranks as reference

KINDS = ("shared", "tcp")
D, VOCAB, LENGTH = 24, 70, 64


def pairs(count):
    """Connections between each two ranks, over loopback: by rank, by other rank."""
    found = [{} for _ in range(count)]
    with socket.create_server(("127.0.0.1", 0)) as server:
        for low in range(count):
            for high in range(low + 1, count):
                found[high][low] = socket.create_connection(server.getsockname())
                found[low][high] = server.accept()[0]
    return found


@contextlib.contextmanager
def together(kind, count, **options):
    """All ranks of a group, in this process."""
    with contextlib.ExitStack() as stack:
        if kind == "shared":
            file = shared_file(count, options.get("slot_bytes", 1 << 20))
            stack.callback(os.close, file)
            yield [Ranks.shared(file, rank=r, ranks=count, **options) for r in range(count)]
        else:
            sockets = pairs(count)
            for one in sockets:
                for each in one.values():
                    stack.enter_context(each)
            made = [Ranks.tcp(sockets[r], rank=r, ranks=count, **options) for r in range(count)]
            for one in sockets:  # the ranks have their own copies
                for each in one.values():
                    each.close()
            yield made


def everywhere(ranks, body):
    """``body(ranks[r])`` of all ranks at once, in threads: kernels release the interpreter's lock."""
    with ThreadPoolExecutor(len(ranks)) as pool:
        return list(pool.map(body, ranks))


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_sums_have_the_bits_of_the_oracle_at_all_ranks(kind, count):
    rng = np.random.default_rng(0)
    with together(kind, count, slot_bytes=4096) as ranks:
        for rows, width in ((1, 1), (1, 1024), (3, 7), (97, 129), (1000, 3)):
            parts = rng.standard_normal((count, rows, width)).astype(np.float32)
            start = rng.standard_normal((rows, width)).astype(np.float32)

            def body(one):
                out = start.copy()
                one.sum(parts[one.rank], out)
                return out

            found = everywhere(ranks, body)
            wanted = reference.summed(start, parts)
            assert all(one.tobytes() == wanted.tobytes() for one in found), (rows, width)
        stats = ranks[0].stats()
        assert stats["bytes"] == 4 * (1 + 1024 + 21 + 97 * 129 + 3000) and stats["exchanges"] > 15


@pytest.mark.parametrize("kind", KINDS)
def test_many_exchanges_in_a_row(kind):
    """Ranks run ahead of each other by turns; nothing is overwritten, nothing deadlocks."""
    with together(kind, 3, slot_bytes=1 << 16) as ranks:

        def body(one):
            rng, total = np.random.default_rng(one.rank), np.zeros((1, 1), np.float32)
            for number in range(200):
                if rng.random() < 0.05:
                    time.sleep(rng.random() / 500)
                size = 1 + number * 257 % 9000
                out = np.zeros((size, 5), np.float32)
                one.sum(np.full((size, 5), number + one.rank, np.float32), out)
                assert (out == 3 * number + 3).all()
                total += out[-1, -1]
            return total[0, 0]

        assert everywhere(ranks, body) == [3 * (199 * 100 + 200)] * 3


def build(format="fp32", heads=4, kv_heads=2, K=16, F=96, experts=0, bias=True, **options):
    rng = np.random.default_rng(0)

    def values(*shape, std=1.0):
        return (std * rng.standard_normal(shape)).astype(np.float32)

    def linear(inputs, outputs):
        weight = quant.Matrix.pack(values(inputs, outputs, std=inputs**-0.5), format=format)
        return Linear(weight=weight, bias=values(outputs, std=0.3) if bias else None)

    def layer():
        parts = {"attention_norm": Norm(weight=1 + values(D, std=0.1))}
        parts["feed_forward_norm"] = Norm(weight=1 + values(D, std=0.1))
        parts["qkv"] = linear(D, (heads + 2 * kv_heads) * K)
        parts["out"] = linear(heads * K, D)
        if not experts:
            return Layer(**parts, up=linear(D, 2 * F), down=linear(F, D))
        parts["router"] = quant.Matrix.pack(values(D, experts, std=0.3), format="fp32")
        return Layer(
            **parts, experts=tuple((linear(D, 2 * F), linear(F, D)) for _ in range(experts))
        )

    table = quant.Matrix.pack(values(D, VOCAB), format=format)
    return Model(
        embedding=table,
        head=table,
        layers=(layer(), layer()),
        final_norm=Norm(weight=1 + values(D, std=0.1)),
        heads=heads,
        kv_heads=kv_heads,
        head_size=K,
        intermediate=F,
        max_length=LENGTH,
        experts_per_token=2 if experts else 0,
        **options,
    )


def part_of(model, rank, ranks):
    """What a rank has: equal parts of heads and of the inner width; the head in whole panels."""
    H, G, K, F = model.heads, model.kv_heads, model.head_size, model.intermediate
    h, g, f = ([n * one // ranks for one in (rank, rank + 1)] for n in (H, G, F))

    def pick(linear, outputs, inputs=None):
        weight = linear.weight.dequantize()
        weight = weight[:, outputs] if inputs is None else weight[inputs]
        bias = linear.bias
        if bias is not None and inputs is None:
            bias = bias[outputs]
        elif rank > 0:
            bias = None
        packed = quant.Matrix.pack(np.ascontiguousarray(weight), format=linear.weight.format)
        return Linear(weight=packed, bias=bias)

    def feed_forward(up, down):
        inner = np.arange(*f)
        return pick(up, np.r_[inner, F + inner]), pick(down, None, inner)

    def layer(one):
        q, k = np.arange(h[0] * K, h[1] * K), np.arange(g[0] * K, g[1] * K)
        columns = np.r_[q, H * K + k, (H + G) * K + k]
        changes = {"qkv": pick(one.qkv, columns), "out": pick(one.out, None, q)}
        if one.experts:
            changes["experts"] = tuple(feed_forward(*pair) for pair in one.experts)
        else:
            changes["up"], changes["down"] = feed_forward(one.up, one.down)
        return dataclasses.replace(one, **changes)

    panels = -(-VOCAB // 32)
    first, last = (min(VOCAB, panels * one // ranks * 32) for one in (rank, rank + 1))
    return dataclasses.replace(
        model,
        layers=tuple(layer(one) for one in model.layers),
        head=model.head.columns(first, last) if last > first else None,
        heads=h[1] - h[0],
        kv_heads=g[1] - g[0],
        intermediate=f[1] - f[0],
        slopes=None if model.slopes is None else model.slopes[h[0] : h[1]],
    )


CASES = {
    "plain": {},
    "slopes": {"slopes": 2.0 ** -np.arange(1, 5)},
    "experts": {"experts": 3},
    "no bias": {"bias": False, "heads": 8, "kv_heads": 4},
}
TOKENS = np.random.default_rng(1).integers(0, VOCAB, 40)


def logits_of(model, hidden=False):
    made = Decoder(model, most_rows=40)
    rows = [Rows(TOKENS, 0, [2, 0, 1])]
    return made.forward(Cache(made, 3), rows, wanted=np.arange(40), hidden=hidden, threads=1)


@pytest.mark.parametrize("kind,count", [("shared", 2), ("tcp", 2), ("shared", 4), ("tcp", 4)])
@pytest.mark.parametrize("case", CASES)
def test_a_decoder_in_parts_gives_what_the_whole_gives(case, kind, count):
    """Prompts whole and in parts; few rows fit into a slot, so that sums and logits go in pieces."""
    options = CASES[case]
    if count == 4:
        options = options | {"heads": 4, "kv_heads": 4}
    model = build(**options)
    wanted, states = logits_of(model), logits_of(model, hidden=True)
    with together(kind, count, slot_bytes=1024) as ranks:

        def body(one):
            made = Decoder(part_of(model, one.rank, count), 40, ranks=one)
            cache = Cache(made, 3)
            call = [cache, [Rows(TOKENS, 0, [2, 0, 1])]]
            found = [made.forward(*call, wanted=np.arange(40), hidden=h, threads=1) for h in (0, 1)]
            pieces = []
            for at in (0, 1, 2, 30):
                rows = Rows(TOKENS[at : at + 1] if at < 2 else TOKENS[at : at * 15], at, [1, 2, 0])
                pieces.append(made.forward(cache, [rows], wanted=[len(rows.tokens) - 1], threads=1))
            return *found, np.concatenate(pieces)

        found = everywhere(ranks, body)
    logits, hidden, pieces = found[0]
    np.testing.assert_allclose(logits, wanted, rtol=1e-5, atol=1e-5 * wanted.std())
    np.testing.assert_allclose(hidden, states, rtol=1e-5, atol=1e-5)
    assert pieces.tobytes() == logits[[0, 1, 29, 39]].tobytes()
    for others in found[1:]:
        assert others[0].shape == (40, 0) and others[1].tobytes() == hidden.tobytes()


@pytest.mark.parametrize("format,allowed", [("bf16", 1e-5), ("int8", 0.02), ("int4", 0.02)])
def test_formats_of_weights_in_parts(format, allowed):
    """Cuts are between groups of 32 inputs, so codes are the same; rows may round to either side later."""
    model = build(format, heads=4, kv_heads=2, K=16, F=128)
    wanted = logits_of(model)
    with together("shared", 2) as ranks:
        parts = [part_of(model, rank, 2) for rank in range(2)]
        for one, half in zip(parts, (slice(0, 64), slice(64, 128))):
            down = one.layers[0].down.weight.dequantize()
            np.testing.assert_array_equal(down, model.layers[0].down.weight.dequantize()[half])

        def body(one):
            made = Decoder(parts[one.rank], 40, ranks=one)
            return made.forward(
                Cache(made, 3), [Rows(TOKENS, 0, [0, 1, 2])], wanted=np.arange(40), threads=1
            )

        found = everywhere(ranks, body)[0]
    assert np.abs(found - wanted).max() < allowed * wanted.std()


def test_decoders_that_do_not_fit_together_are_refused():
    model = build()
    for changes, message in (
        ({"max_length": 32}, "max_length must be alike on all ranks, but is"),
        ({"head": None}, "parts of the head must have 70 outputs together, not"),
    ):
        with together("shared", 2) as ranks:

            def body(one):
                part = part_of(model, one.rank, 2)
                part = dataclasses.replace(part, **changes) if one.rank else part
                with pytest.raises(ValueError, match=message):
                    Decoder(part, 8, ranks=one)
                return True

            assert all(everywhere(ranks, body))
    with together("shared", 2, slot_bytes=64) as ranks:
        with pytest.raises(ValueError, match="slot_bytes must hold"):
            Decoder(part_of(model, 0, 2), 8, ranks=ranks[0])


@pytest.mark.parametrize("kind", KINDS)
def test_silence_is_an_error_at_the_end_of_the_time(kind):
    with together(kind, 2, timeout_s=0.3) as ranks:
        x = np.zeros((1, 4), np.float32)
        start = time.monotonic()
        for _ in range(2):  # and stays one
            with pytest.raises(ConnectionError, match="rank 1 has not answered in time"):
                ranks[0].sum(x, x.copy())
        assert 0.2 < time.monotonic() - start < 3


def test_ranks_out_of_step_are_found_out():
    for kind in KINDS:
        with together(kind, 2, timeout_s=0.5) as ranks:

            def body(one):
                x = np.zeros((1, 4 + 4 * one.rank), np.float32)
                with pytest.raises(ConnectionError, match="out of step|in time|is lost|has ended"):
                    one.sum(x, x.copy())
                return True

            assert all(everywhere(ranks, body))


CHILD = """
import os, socket, sys, time
import numpy as np
from oarlock.native.ranks import Ranks
kind, rank, count, file = sys.argv[1], *map(int, sys.argv[2:5])
links = dict(zip([r for r in range(count) if r != rank], map(int, sys.argv[5:])))
links = {r: socket.socket(fileno=fd) for r, fd in links.items()}
if kind == "shared":
    ranks = Ranks.shared(file, rank=rank, ranks=count, watched={0: links[0]})
else:
    ranks = Ranks.tcp(links, rank=rank, ranks=count)
    for one in links.values(): one.close()
x, out = np.ones((1, 8), np.float32), np.zeros((1, 8), np.float32)
print("ready", flush=True)
try:
    while True:
        ranks.sum(x, out)
except ConnectionError as error:
    print(error, flush=True)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, "leader"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_rank_is_an_error_at_all_others(kind, how):
    count = 3
    sockets, file = pairs(count), shared_file(3)
    children = []
    for rank in (1, 2):
        own = [one.fileno() for _, one in sorted(sockets[rank].items())]
        command = [sys.executable, "-c", CHILD, kind, rank, count, file, *own]
        children.append(
            subprocess.Popen(
                [*map(str, command)], pass_fds=[file, *own], stdout=subprocess.PIPE, text=True
            )
        )
    for rank in (1, 2):
        for one in sockets[rank].values():
            one.close()
    if kind == "shared":
        ranks = Ranks.shared(file, rank=0, ranks=count, watched=sockets[0])
    else:
        ranks = Ranks.tcp(sockets[0], rank=0, ranks=count)
        for one in sockets[0].values():
            one.close()
    try:
        x, out = np.ones((1, 8), np.float32), np.zeros((1, 8), np.float32)
        for child in children:
            assert child.stdout.readline() == "ready\n"
        for number in range(50):
            ranks.sum(x, out)
        assert (out == 150).all()
        start = time.monotonic()
        if how == "leader":
            del ranks
            for one in sockets[0].values():
                one.close()
        else:
            children[0].send_signal(how)
            with pytest.raises(ConnectionError, match="rank [12] (has ended|cannot be|is lost)"):
                while True:
                    ranks.sum(x, out)
            del ranks
        said = children[1].communicate(timeout=10)[0]
        assert time.monotonic() - start < 5
        assert "rank" in said and children[1].returncode == 0
    finally:
        os.close(file)
        for child in children:
            child.kill()
            child.communicate()
        for one in sockets[0].values():
            one.close()


def test_arguments_that_do_not_fit_are_refused():
    file = shared_file(2)
    try:
        for options, message in (
            ({"rank": 2, "ranks": 2}, r"rank must be in \[0, 2\), not 2"),
            ({"rank": 0, "ranks": 65}, "ranks must be between 1 and 64, not 65"),
            ({"rank": 0, "ranks": 3}, f"must have {shared_bytes(3)} bytes"),
            ({"rank": 0, "ranks": 2, "slot_bytes": 65}, "slot_bytes must be a positive multiple"),
            ({"rank": 0, "ranks": 2, "timeout_s": 0.0}, "timeout_s must be positive"),
        ):
            with pytest.raises(ValueError, match=message):
                Ranks.shared(file, **options)
        ranks = Ranks.shared(file, rank=0, ranks=2)
        x = np.zeros((1, 8), np.float32)
        for part, out, message in (
            (x, np.zeros((1, 9), np.float32), r"out must be contiguous float32 of shape \(1, 8\)"),
            (x.astype(np.float64), x, "part must be contiguous float32"),
            (x[0], x[0], "part must have two axes"),
            (np.zeros((1, 1 << 19), np.float32),) * 2 + ("a row must have between 1 and 262144",),
        ):
            with pytest.raises(ValueError, match=message):
                ranks.sum(part, out)
        with pytest.raises(ValueError, match=r"sockets must be of ranks \[1\], not \[\]"):
            Ranks.tcp({}, rank=0, ranks=2)
        with pytest.raises(ValueError, match="ranks must be between 1 and 64"):
            shared_file(0)
    finally:
        os.close(file)
    table = quant.Matrix.pack(np.zeros((8, 70), np.float32), format="int8")
    with pytest.raises(ValueError, match="first a multiple of 32, not 8 and 40"):
        table.columns(8, 40)


def changes(model, rank=0, ranks=1):
    """A rank's part of a random adapter: columns of B where outputs are cut, rows of A where inputs are."""
    rng = np.random.default_rng(5)
    H, G, K, F = (model.heads, model.kv_heads, model.head_size, model.intermediate)
    q, k, f = (np.arange(n * rank // ranks, n * (rank + 1) // ranks) for n in (H * K, G * K, F))

    def values(*shape):
        return (0.2 * rng.standard_normal(shape)).astype(np.float32)

    def layer():
        qa, qb, va, vb = values(D, 3), values(3, H * K), values(D, 2), values(2, G * K)
        oa, ob, ua, ub = values(H * K, 4), values(4, D), values(D, 2), values(2, F)
        da, db = values(F, 5), values(5, D)
        pack = adapters.LowRank.pack
        up, down = pack([(ua, ub[:, f], len(f))]), pack([(da[f], db, 0)])
        experts = len(model.layers[0].experts)
        return adapters.AdapterLayer(
            qkv=pack([(qa, qb[:, q], 0), (va, vb[:, k], len(q) + len(k))]),
            out=pack([(oa[q], ob, 0)]),
            **({} if experts else {"up": up, "down": down}),
            experts=((up, down), (None, down), (up, None))[:experts],
        )

    return adapters.Adapter(layers=tuple(layer() for _ in model.layers))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", ["plain", "experts"])
def test_adapters_of_a_decoder_in_parts(case, kind):
    """Sequences with and without one; pieces of sums begin in the midst of them."""
    model = build(**CASES[case])
    cut = [TOKENS[:13], TOKENS[13:27], TOKENS[27:]]
    rows = [Rows(one, 0, [i], adapter=-1 if i == 1 else 0) for i, one in enumerate(cut)]

    def results(made, given):
        assert made.load_adapter(given) == 0
        return made.forward(Cache(made, 3), rows, wanted=np.arange(40), threads=1)

    wanted = results(Decoder(model, 40), changes(model))
    with together(kind, 2, slot_bytes=1024) as ranks:

        def body(one):
            made = Decoder(part_of(model, one.rank, 2), 40, ranks=one)
            return results(made, changes(model, one.rank, 2))

        found = everywhere(ranks, body)[0]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5 * wanted.std())
    plain = Decoder(model, 40).forward(
        Cache(Decoder(model, 40), 3), [Rows(cut[1], 0, [0])], wanted=np.arange(14), threads=1
    )
    np.testing.assert_allclose(found[13:27], plain, rtol=1e-5, atol=1e-5 * wanted.std())
    assert np.abs(found[:13] - logits_of(model)[:13]).max() > 0.1 * wanted.std()


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("case", ["plain", "experts"])
def test_halves_of_a_batch_that_travel_while_others_are_computed_have_the_same_bits(case, count):
    """Over TCP a large batch goes in halves, cut in the midst of a sequence; over shared memory as a whole."""
    model = build(**CASES[case], **({"heads": 6, "kv_heads": 3} if count == 3 else {}))
    rng = np.random.default_rng(3)
    texts = [rng.integers(0, VOCAB, length) for length in (60, 1, 41, 57, 12)]
    pages = np.arange(20).reshape(5, 4)
    rows = [Rows(one, 0, own, adapter=i % 2 - 1) for i, (one, own) in enumerate(zip(texts, pages))]
    wanted = np.arange(171)
    found = []
    for kind in KINDS:
        with together(kind, count) as ranks:

            def body(one):
                made = Decoder(part_of(model, one.rank, count), 171, ranks=one)
                made.load_adapter(changes(model, one.rank, count))
                cache = Cache(made, 20)
                logits = made.forward(cache, rows, wanted=wanted, threads=1)
                states = made.forward(cache, rows, wanted=wanted, hidden=True, threads=1)
                return logits, states, one.stats()["exchanges"]

            found.append(everywhere(ranks, body))
    whole, halves = found
    assert halves[0][2] > whole[0][2]  # it was in halves indeed
    assert whole[0][0].tobytes() == halves[0][0].tobytes()
    for one in (*whole, *halves):
        assert one[1].tobytes() == whole[0][1].tobytes()
