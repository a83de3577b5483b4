"""Decoder-only transformers for inference: many sequences a call, keys and values in pages.

A ``Model`` says what a decoder computes; its fields cover GPT-2, BLOOM, LLaMA and its kin, GLM, and mixtures of
experts. One call of ``Decoder.forward`` takes rows (tokens) of any number of sequences through all layers: whole
prompts, parts of them and single tokens beside each other. Memory is planned once, for the most rows of a call.

- **Keys and values** are in pages of 16 positions, as float32, bfloat16, or int8 with a scale for each head and
  position. Which pages belong to a sequence, and which sequences share them, is the caller's business.
- **Same bits** for any batch: what a row gets does not depend on the other rows, on how a prompt was cut, nor on
  threads. Only NaN and Inf may reach earlier rows of their own sequence.
- Products are those of ``oarlock.native.quant``; norms, softmax and activations are float32.

>>> decoder = Decoder(model, most_rows=512)
>>> cache = Cache(decoder, pages=64, format="bf16")
>>> logits = decoder.forward(cache, [Rows(tokens=[5, 9, 2], start=0, pages=[0])], wanted=[2])

Source: Kwon et al., PagedAttention, 2309.06180; Milakov & Gimelshein, online softmax, 1805.02867.
"""

import ctypes
import dataclasses
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oarlock.native import _decoder_abi as abi
from oarlock.native import _library, adapters, quant
from oarlock.native import threads as _threads
from oarlock.native.ranks import Ranks

PAGE = 16  #: positions of a page
Floats = NDArray[np.float32]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Linear:
    """x W + bias, with W [inputs, outputs] and the bias [outputs] or None."""

    weight: quant.Matrix
    bias: Floats | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Norm:
    """Gains [D], and the bias [D] of a layer norm or None."""

    weight: Floats
    bias: Floats | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layer:
    """x += out(attention(norm(x))), then x += down(activation(up(norm(x)))).

    Args:
        attention_norm, feed_forward_norm: each before its part.
        qkv: [D, (H + 2 G) K], queries of H heads, keys and values of G heads, beside each other.
        out: [H K, D].
        up: [D, F], or [D, 2 F] with gate and up beside each other where the activation has a gate.
        down: [F, D].
        router: [D, E] where there are experts in place of up and down.
        experts: up and down of each expert.
    """

    attention_norm: Norm
    feed_forward_norm: Norm
    qkv: Linear
    out: Linear
    up: Linear | None = None
    down: Linear | None = None
    router: quant.Matrix | None = None
    experts: tuple[tuple[Linear, Linear], ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Model:
    """A decoder: its layers, its tables and what is the same in all layers.

    Args:
        embedding, head: [D, V]; they may be one matrix. Of several ranks each has some columns of the head, the first
            rank the first ones, or None.
        layers: at least one, alike in sizes.
        final_norm: before the head.
        embedding_norm: after the embedding, or None.
        heads, kv_heads: H and G, H a multiple of G.
        head_size: K; fastest where it is a multiple of 16.
        intermediate: F.
        max_length: positions.
        layer_norm: norms take the mean away; False for root-mean-square norms.
        activation: "swiglu" (the one with a gate), "gelu_tanh", "gelu" or "relu".
        epsilon: of the norms.
        attention_scale: of scores; None for 1 / sqrt(K).
        cos, sin: [max_length, R / 2] for the first R numbers of each head, which turn with the position; or None.
        rotary_halves: number i turns with i + R / 2; False for neighbours 2 i and 2 i + 1.
        slopes: [H]; adds slope (key position - query position) to scores (2108.12409); or None.
        positions: [max_length, D], added to embeddings; or None.
        window: positions that a token sees, its own included; None for all before it.
        experts_per_token: of the experts, chosen by the router's softmax and weighted by it.
    """

    embedding: quant.Matrix
    head: quant.Matrix | None
    layers: tuple[Layer, ...]
    final_norm: Norm
    embedding_norm: Norm | None = None
    heads: int
    kv_heads: int
    head_size: int
    intermediate: int
    max_length: int
    layer_norm: bool = False
    activation: str = "swiglu"
    epsilon: float = 1e-5
    attention_scale: float | None = None
    cos: Floats | None = None
    sin: Floats | None = None
    rotary_halves: bool = False
    slopes: Floats | None = None
    positions: Floats | None = None
    window: int | None = None
    experts_per_token: int = 0

    @property
    def hidden(self) -> int:
        """D."""
        return self.embedding.inputs

    @property
    def vocab(self) -> int:
        """V."""
        return self.embedding.outputs

    def matrices(self) -> list[quant.Matrix]:
        """All packed weights, one that is used twice once."""
        found = [one for one in (self.embedding, self.head) if one is not None]
        for layer in self.layers:
            linears = [layer.qkv, layer.out, layer.up, layer.down]
            linears += [one for pair in layer.experts for one in pair]
            found += [one.weight for one in linears if one is not None]
            found += [] if layer.router is None else [layer.router]
        return list({id(one): one for one in found}.values())


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The next tokens of a sequence.

    Args:
        tokens: ids, at least one.
        start: position of the first.
        pages: numbers of the sequence's pages from its beginning, up to the one of the last token.
        adapter: number that ``load_adapter`` gave; -1 for the model alone.
    """

    tokens: Sequence[int] | NDArray[np.integer]
    start: int
    pages: Sequence[int] | NDArray[np.integer]
    adapter: int = -1


class Cache:
    """Pages for keys and values of a decoder; numbers 0 to pages - 1.

    Args:
        decoder: whose sizes a page has.
        pages: how many.
        format: "fp32", "bf16" or "int8".
    """

    def __init__(self, decoder: "Decoder", pages: int, format: str = "fp32") -> None:
        if format not in abi.CACHE_FORMATS:
            raise ValueError(
                f"format must be one of {', '.join(abi.CACHE_FORMATS)}, not {format!r}"
            )
        if isinstance(pages, bool) or not isinstance(pages, int) or pages < 1:
            raise ValueError(f"pages must be a positive integer, not {pages!r}")
        self.format, self.pages = format, pages
        self.page_bytes = decoder.page_bytes(format)
        self._memory = np.zeros((pages, self.page_bytes), np.uint8)
        self._argument = abi.Cache(self._memory.ctypes.data, pages, abi.CACHE_FORMATS.index(format))

    @property
    def nbytes(self) -> int:
        """Bytes in memory, once all pages are in use."""
        return self._memory.nbytes

    def copy_page(self, source: int, target: int) -> None:
        """Give one page what another holds."""
        for name, page in (("source", source), ("target", target)):
            if not 0 <= page < self.pages:
                raise ValueError(f"{name} must be in [0, {self.pages}), not {page}")
        self._memory[target] = self._memory[source]


class Decoder:
    """A model with the memory to compute it. One call at a time.

    Args:
        model: what to compute.
        most_rows: tokens of a call, at most.
        ranks: the processes that compute the model together, each with a part of its heads, of its feed-forward
            network (biases of ``out`` and ``down`` at one of them) and of the outputs of its head. All make their
            decoder, and then go through the same calls; states have the same bits at all of them.

    Raises:
        ValueError: sizes of the model do not fit together, or not to those of other ranks.
        ConnectionError: a rank is gone.
    """

    def __init__(self, model: Model, most_rows: int, *, ranks: Ranks | None = None) -> None:
        self.model, self.most_rows, self.ranks = model, most_rows, ranks
        self._library = _library.load()
        self._kept: list[Any] = []
        self._adapters: dict[int, list[Any]] = {}  # what each points to
        handle = ctypes.c_void_p()
        self._library.call(
            "oarlock_decoder_create",
            ctypes.byref(_model(model, self._kept)),
            ctypes.c_int64(most_rows),
            None if ranks is None else ranks.handle,
            ctypes.byref(handle),
        )
        self._handle = handle
        weakref.finalize(self, self._library.functions.oarlock_decoder_destroy, handle)

    def page_bytes(self, format: str) -> int:
        """Bytes of a page of all layers."""
        size = self._library.functions.oarlock_decoder_page_bytes
        size.restype = ctypes.c_int64
        return size(self._handle, abi.CACHE_FORMATS.index(format))

    def load_adapter(self, adapter: adapters.Adapter) -> int:
        """Take low-rank changes in, for the ``Rows`` that name their number. No number is given twice.

        Raises:
            ValueError: sizes are not the model's.
        """
        kept: list[Any] = []
        layers, number = self.model.layers, ctypes.c_int32()
        given = adapters.argument(adapter, len(layers), len(layers[0].experts), kept)
        self._library.call(
            "oarlock_decoder_load_adapter",
            self._handle,
            ctypes.byref(given),
            ctypes.byref(number),
        )
        self._adapters[number.value] = kept
        return number.value

    def unload_adapter(self, number: int) -> None:
        """Forget an adapter.

        Raises:
            ValueError: there is none of this number.
        """
        self._library.call("oarlock_decoder_unload_adapter", self._handle, ctypes.c_int32(number))
        del self._adapters[number]

    def forward(
        self,
        cache: Cache,
        sequences: Sequence[Rows],
        *,
        wanted: Sequence[int] | NDArray[np.integer],
        hidden: bool = False,
        threads: int | None = None,
    ) -> Floats:
        """Take tokens through the model and keep their keys and values.

        Args:
            cache: made for this decoder.
            sequences: the tokens, each sequence once; together at most ``most_rows``.
            wanted: numbers of the tokens, counted through all sequences, whose results are wanted.
            hidden: the states before the head in place of logits.
            threads: number of threads; None for Paddle's, or without Paddle the physical cores. It does not
                change the result.

        Returns:
            Logits [wanted, V] or states [wanted, D]. Of several ranks the first has the logits; at the others the
            array is empty.

        Raises:
            ValueError: a token, position, page or adapter does not exist; nothing was changed.
            ConnectionError: a rank is gone.
        """
        return _forward(self, cache, sequences, wanted, hidden, False, threads)


def _forward(
    decoder: Decoder,
    cache: Cache,
    sequences: Sequence[Rows],
    wanted: Sequence[int] | NDArray[np.integer],
    hidden: bool,
    base: bool,
    threads: int | None,
) -> Floats:
    """``Decoder.forward``; with ``base`` on what every processor of the code path has."""
    if cache.page_bytes != decoder.page_bytes(cache.format):
        raise ValueError("cache was made for another decoder")
    counts = np.array([len(one.tokens) for one in sequences], np.int32)
    tokens = np.concatenate([np.asarray(one.tokens, np.int32) for one in sequences] or [counts])
    starts = np.array([one.start for one in sequences], np.int32)
    most = max((len(one.pages) for one in sequences), default=0)
    pages = np.full((len(sequences), most), -1, np.int32)
    for row, one in zip(pages, sequences):
        row[: len(one.pages)] = one.pages
    numbers = np.array([one.adapter for one in sequences], np.int32)
    rows = np.asarray(wanted, np.int32)
    width = decoder.model.hidden if hidden else decoder.model.vocab
    if not hidden and decoder.ranks is not None and decoder.ranks.rank > 0:
        width = 0
    out = np.empty((len(rows), width), np.float32)
    arrays = [one.ctypes.data for one in (tokens, starts, counts, pages, numbers, rows)]
    outs = [None, out.ctypes.data] if hidden else [out.ctypes.data, None]
    batch = abi.Batch(len(tokens), len(sequences), most, len(rows), *arrays, *outs)
    decoder._library.call(
        "oarlock_decoder_forward",
        decoder._handle,
        ctypes.byref(cache._argument),
        ctypes.byref(batch),
        int(base),
        _threads.count(threads),
    )
    return out


def _model(model: Model, kept: list[Any]) -> abi.Model:
    """The structure of the C ABI; ``kept`` gets all that it points to."""
    layers = (abi.Layer * len(model.layers))(*(_layer(one, model, kept) for one in model.layers))
    D, rotary = model.hidden, 0 if model.cos is None else 2 * np.shape(model.cos)[-1]
    table = (model.max_length, rotary // 2)
    K = model.head_size
    if model.activation not in abi.ACTIVATIONS:
        raise ValueError(
            f"activation must be one of {', '.join(abi.ACTIVATIONS)}, not {model.activation!r}"
        )
    kept += [layers, model]
    return abi.Model(
        layers=len(layers),
        hidden=D,
        heads=model.heads,
        kv_heads=model.kv_heads,
        head_size=K,
        intermediate=model.intermediate,
        vocab=model.vocab,
        max_length=model.max_length,
        experts=len(model.layers[0].experts) if model.layers else 0,
        experts_per_token=model.experts_per_token,
        layer_norm=model.layer_norm,
        activation=abi.ACTIVATIONS.index(model.activation),
        rotary=rotary,
        rotary_halves=model.rotary_halves,
        window=model.window or 0,
        epsilon=model.epsilon,
        attention_scale=K**-0.5 if model.attention_scale is None else model.attention_scale,
        cos=_floats("cos", model.cos, table, kept),
        sin=_floats("sin", model.sin, table, kept),
        slopes=_floats("slopes", model.slopes, (model.heads,), kept),
        positions=_floats("positions", model.positions, (model.max_length, D), kept),
        embedding=abi.matrix(model.embedding),
        embedding_norm=_norm("embedding_norm", model.embedding_norm, model, kept),
        final_norm=_norm("final_norm", model.final_norm, model, kept),
        head=abi.matrix(model.head),
        of_layer=layers,
    )


def _layer(layer: Layer, model: Model, kept: list[Any]) -> abi.Layer:
    count = len(model.layers[0].experts)
    if len(layer.experts) != count:
        raise ValueError(f"every layer must have {count} experts, but one has {len(layer.experts)}")
    pairs = [_linear(one, kept) for pair in layer.experts for one in pair]
    experts = (abi.Linear * len(pairs))(*pairs)
    kept.append(experts)
    return abi.Layer(
        _norm("attention_norm", layer.attention_norm, model, kept),
        _norm("feed_forward_norm", layer.feed_forward_norm, model, kept),
        _linear(layer.qkv, kept),
        _linear(layer.out, kept),
        _linear(layer.up, kept),
        _linear(layer.down, kept),
        abi.matrix(layer.router),
        experts if pairs else None,
    )


def _linear(linear: Linear | None, kept: list[Any]) -> abi.Linear:
    if linear is None:
        return abi.Linear()
    shape = (linear.weight.outputs,)
    return abi.Linear(abi.matrix(linear.weight), _floats("bias", linear.bias, shape, kept))


def _norm(name: str, norm: Norm | None, model: Model, kept: list[Any]) -> abi.Norm:
    if norm is None:
        return abi.Norm()
    if norm.bias is not None and not model.layer_norm:
        raise ValueError(f"{name} must have no bias without layer_norm")
    arrays = (norm.weight, norm.bias)
    return abi.Norm(*(_floats(name, one, (model.hidden,), kept) for one in arrays))


def _floats(
    name: str, values: Floats | None, shape: tuple[int, ...], kept: list[Any]
) -> int | None:
    if values is None:
        return None
    if np.shape(values) != shape:
        raise ValueError(f"{name} has shape {np.shape(values)}, but must be {shape}")
    array = np.ascontiguousarray(values, np.float32)
    kept.append(array)
    return array.ctypes.data
