"""What a decoder does on a GPU between its products: norms, activations, rotation, and attention over pages.

Each step writes numbers, the rounded rows that ``quant_cuda.matmul`` takes, or both, so that a layer needs seven launches and two more where
sequences are long. Keys and values are in pages of 16 positions, in the bytes of ``oarlock.native.decoder``.

- **Decoding** (up to 4 rows of a sequence in a call) splits positions into spans of 256 and merges them; prompts go
  through tensor cores, with queries and weights rounded to bfloat16, where the cache is bfloat16 or int8.
- **Same bits** from call to call and in every batch; a prompt in parts of more than 4 rows has those of the whole.
- Head sizes are multiples of 8 up to 256.

Kernels compile and agree with the oracle on an emulator; they have not been run on a GPU yet.

Source: Kwon et al., PagedAttention, 2309.06180; Dao et al., FlashAttention, 2205.14135 (tiles), Flash-Decoding (spans).
"""

import ctypes
import dataclasses
from typing import Any

from oarlock.native import _cuda_abi, _cuda_call, quant_cuda
from oarlock.native._decoder_abi import ACTIVATIONS, CACHE_FORMATS

_POINTERS = ("pages", "starts", "counts", "offsets", "owners")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """Which rows belong to which sequence; int32 tensors on a GPU, which nobody checks there.

    Args:
        pages: [sequences, most pages], those of each sequence from its beginning.
        starts: [sequences], position of the first row in this call.
        counts: [sequences], rows in this call.
        offsets: [sequences], number of the first row.
        owners: [rows], the sequence of each.
        least_rows, most_rows: bounds of ``counts``.
        most_length: positions of the longest sequence, these rows included, at most.
    """

    pages: Any
    starts: Any
    counts: Any
    offsets: Any
    owners: Any
    least_rows: int
    most_rows: int
    most_length: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Heads:
    """What attention has in all layers.

    Args:
        layers, heads, kv_heads, head_size: sizes, heads a multiple of kv_heads.
        cache_format: "fp32", "bf16" or "int8".
        rotary: how many of a head's numbers turn with the position.
        rotary_halves: number i turns with i + rotary / 2; False for neighbours.
        window: positions that a token sees, its own included; None for all before it.
        scale: of scores; None for 1 / sqrt(head_size).
    """

    layers: int
    heads: int
    kv_heads: int
    head_size: int
    cache_format: str = "bf16"
    rotary: int = 0
    rotary_halves: bool = False
    window: int | None = None
    scale: float | None = None

    def page_bytes(self) -> int:
        """Bytes of a page of all layers; the cache is uint8 [pages, page_bytes], zero at first."""
        options = self._options(0, 1, 1, 1)
        return _cuda_call.size("decoder_page_bytes", ctypes.byref(options))

    def _options(self, layer: int, least: int, most: int, length: int) -> _cuda_abi.Attention:
        if self.cache_format not in CACHE_FORMATS:
            raise ValueError(
                f"cache_format must be one of {', '.join(CACHE_FORMATS)}, not {self.cache_format!r}"
            )
        return _cuda_abi.Attention(
            layer,
            self.layers,
            self.heads,
            self.kv_heads,
            self.head_size,
            CACHE_FORMATS.index(self.cache_format),
            self.rotary,
            self.rotary_halves,
            self.window or 0,
            least,
            most,
            length,
            self.head_size**-0.5 if self.scale is None else self.scale,
        )


def norm(
    x: Any,
    weight: Any,
    *,
    epsilon: float,
    bias: Any = None,
    layer_norm: bool = False,
    out: Any = None,
    rows: quant_cuda.Rows | None = None,
) -> None:
    r"""x / rms(x) times the weight, or with ``layer_norm`` (x - mean) / deviation times the weight plus the bias.

    Args:
        x: [rows, size] float32 or bfloat16.
        weight, bias: float32 [size]; the bias may be None.
        epsilon: added to the mean square.
        layer_norm: take the mean away.
        out: [rows, size] float32 or bfloat16, or None.
        rows: the same rounded, or None.

    Raises:
        ValueError: an argument is not as above.
    """
    tensors = {"x": x, "weight": weight, "bias": bias, "out": out, "rows": _bricks(out, rows)}
    options = _cuda_abi.Norm(bool(layer_norm), epsilon)
    _cuda_call.call("decoder_norm", tensors, ctypes.byref(options))


def activate(
    x: Any, activation: str, *, out: Any = None, rows: quant_cuda.Rows | None = None
) -> None:
    """An activation of each number, or with "swiglu" of gate and up, which stand beside each other.

    Args:
        x: [rows, columns], with "swiglu" [rows, 2 columns]; float32 or bfloat16.
        activation: "swiglu", "gelu_tanh", "gelu" or "relu".
        out: [rows, columns] float32 or bfloat16, or None.
        rows: the same rounded, or None.

    Raises:
        ValueError: an argument is not as above.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, not {activation!r}")
    tensors = {"x": x, "out": out, "rows": _bricks(out, rows)}
    index = ctypes.c_int32(ACTIVATIONS.index(activation))
    _cuda_call.call("decoder_activate", tensors, index)


def store(
    qkv: Any,
    cache: Any,
    batch: Batch,
    heads: Heads,
    layer: int,
    *,
    cos: Any = None,
    sin: Any = None,
) -> None:
    """Turn queries in place; store keys, turned, and values in their pages.

    Args:
        qkv: [rows, (heads + 2 kv_heads) head_size] float32 or bfloat16, queries, keys and values beside each other.
        cache: uint8 [pages, page_bytes].
        batch: which rows these are.
        heads: sizes.
        layer: number of the layer.
        cos, sin: float32 [positions, rotary / 2], or None without rotary.

    Raises:
        ValueError: an argument is not as above.
    """
    tensors = _tensors(qkv, cache, batch) | {"cos": cos, "sin": sin}
    options = heads._options(layer, batch.least_rows, batch.most_rows, batch.most_length)
    _cuda_call.call("decoder_store", tensors, ctypes.byref(options))


def attend(
    qkv: Any, cache: Any, batch: Batch, heads: Heads, layer: int, out: Any, *, slopes: Any = None
) -> None:
    """Attention of each row to its sequence's positions up to its own; keys and values have been stored.

    Args:
        qkv, cache, batch, heads, layer: as in ``store``.
        out: [rows, heads head_size] float32 or bfloat16; written.
        slopes: float32 [heads], of a bias linear in the distance, or None.

    Raises:
        ValueError: an argument is not as above.
    """
    tensors = _tensors(qkv, cache, batch) | {"slopes": slopes, "out": out}
    options = heads._options(layer, batch.least_rows, batch.most_rows, batch.most_length)
    _cuda_call.call("decoder_attend", tensors, ctypes.byref(options))


def _tensors(qkv: Any, cache: Any, batch: Batch) -> dict[str, Any]:
    return {"qkv": qkv, "cache": cache} | {name: getattr(batch, name) for name in _POINTERS}


def _bricks(out: Any, rows: quant_cuda.Rows | None) -> Any:
    if out is None and rows is None:
        raise ValueError("out or rows must be given")
    return None if rows is None else rows.bricks
