"""LoRA adapters in the folders of PEFT.

A product ``y = x @ w`` becomes ``x @ w + scale (x @ a) @ b`` with a [in, r], b [r, out]; r is small.

Source: arXiv 2106.09685; scale r^-1/2 instead of r^-1: arXiv 2312.03732; github.com/huggingface/peft
for the files.
"""

import dataclasses
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oarlock.llm.loading.checkpoint import Checkpoint
from oarlock.llm.loading.fields import Fields, read_json
from oarlock.llm.loading.hugging_face import tensors_of
from oarlock.llm.loading.stored import Part, Stored

_NAME = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
_REFUSED = ("use_dora", "use_qalora", "lora_bias")
_ABSENT = ("modules_to_save", "layer_replication", "target_parameters", "trainable_token_indices")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LowRank:
    """Change of one product's weight: ``scale * a @ b``.

    Args:
        a: [in, r] float32.
        b: [r, out] float32.
        scale: alpha / r, or as the adapter says.
    """

    a: NDArray[np.float32]
    b: NDArray[np.float32]
    scale: float

    def delta(self) -> NDArray[np.float32]:
        """What it adds to the weight, [in, out]."""
        return np.float32(self.scale) * (self.a @ self.b)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """Changes by the names of the parameters that they change, such as
    "blocks.0.attention.query.weight".
    """

    source: Path
    changes: Mapping[str, LowRank]


def load_adapter(folder: str | os.PathLike, checkpoint: Checkpoint) -> Adapter:
    """Read ``adapter_config.json`` and ``adapter_model.safetensors``.

    Args:
        folder: of PEFT.
        checkpoint: the model it was trained for, a Hugging Face folder: its names say which
            parameters the adapter's names mean.

    Raises:
        ValueError: a file is truncated or another, the model is no Hugging Face folder, the adapter is no
            plain LoRA, or a matrix is of no parameter, alone, or misshapen; all such are named.
    """
    folder = Path(folder)
    if checkpoint.format != "hugging face":
        raise ValueError(
            f"checkpoint must be a Hugging Face folder, whose names adapters use, got {checkpoint.source} "
            f"({checkpoint.format})."
        )
    fields = read_json(folder / "adapter_config.json")
    fields.must_be("peft_type", "LORA", why="other adapters are not read")
    fields.must_be("bias", "none", why="other adapters are not read")
    for name in _REFUSED:
        fields.must_be(name, False, why="only plain LoRA is read")
    for name in _ABSENT:
        if fields.values.get(name):
            raise ValueError(f"{fields.source}: {name} must be absent: only plain LoRA is read.")
    halves: dict[str, dict[str, Stored]] = {}
    wrong = []
    for name, stored in tensors_of(folder / "adapter_model.safetensors").items():
        found = _NAME.fullmatch(name)
        if (
            found is None
            or len(stored.shape) != 2
            or stored.format not in ("float32", "float16", "bfloat16")
        ):
            wrong.append(f"{name} is no matrix of a LoRA")
        else:
            halves.setdefault(found[1], {})[found[2]] = stored
    changes: dict[str, LowRank] = {}
    for module, pair in halves.items():
        targets = checkpoint.parameters.made_of(f"{module}.weight")
        if not targets:
            wrong.append(f"{module} is no part of the model")
        elif len(pair) != 2:
            wrong.append(f"{module} has only lora_{next(iter(pair))}")
        else:
            error = _misfit(pair["A"].shape, pair["B"].shape, next(iter(targets.values())))
            if error:
                wrong.append(f"{module}: {error}")
            else:
                changes |= _changes(fields, module, pair, targets)
    if wrong:
        raise ValueError(f"{folder} does not fit {checkpoint.source}: {'; '.join(wrong[:50])}.")
    return Adapter(source=folder, changes=changes)


def _misfit(a: tuple[int, ...], b: tuple[int, ...], part: Part) -> str:
    """What is wrong with A [r, in] and B [out, r], if anything."""
    if len(part.shape) != 2:
        return "its weight is no matrix"
    # As most products are stored; those of GPT-2 are [in, out].
    shape = part.shape if part.transposed else part.shape[::-1]
    right = a[0] == b[1] and a[0] > 0 and (b[0], a[1]) == shape
    return "" if right else f"A {a} and B {b} do not give {shape}"


def _changes(
    fields: Fields, module: str, pair: Mapping[str, Stored], targets: Mapping[str, Part]
) -> dict[str, LowRank]:
    a, b = (np.asarray(pair[half].read()).astype(np.float32) for half in "AB")
    r = a.shape[0]
    alpha = _of_pattern(fields, "alpha_pattern", module, fields.number("lora_alpha"))
    expected = _of_pattern(fields, "rank_pattern", module, fields.integer("r"))
    if expected != r:
        raise ValueError(f"{fields.source}: rank of {module} must be {r}, got {expected}.")
    scale = alpha / (math.sqrt(r) if fields.flag("use_rslora", default=False) else r)
    found = {}
    for name, part in targets.items():
        outputs = part.rows if part.transposed else part.columns
        found[name] = LowRank(a=a.T, b=(b if outputs is None else b[outputs]).T, scale=scale)
    return found


def _of_pattern(fields: Fields, name: str, module: str, default: Any) -> Any:
    """A module's own number: patterns are ends of names, or expressions for them."""
    for pattern, value in fields.mapping(name, default={}).items():
        if type(value) not in (int, float):
            raise ValueError(f"{fields.source}: {name} must be numbers, got {value!r}.")
        if module == pattern or module.endswith(f".{pattern}"):
            return value
    return default
