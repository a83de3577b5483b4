"""Our configurations as GGUF's metadata; ``loading.gguf_model`` reads them.

Source: github.com/ggml-org/llama.cpp, ``gguf-py/gguf/constants.py``, ``conversion/`` (what its converter writes) and
``src/llama-model.cpp`` (what is read of it).
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from oarlock.llm.loading import parts
from oarlock.llm.loading.gguf_model import EXPERTS, FREQUENCIES, JOINED, NAMES
from oarlock.llm.loading.parts import Parts
from oarlock.llm.models.bloom import BloomConfig
from oarlock.llm.models.config import ModelConfig
from oarlock.llm.models.glm import GLMConfig
from oarlock.llm.models.gpt import GPTConfig
from oarlock.llm.models.llama import LlamaConfig
from oarlock.llm.models.moe import MoEConfig
from oarlock.llm.models.rope import RopeScaling, frequencies
from oarlock.llm.writing.tensors import Tensor

#: Positions that files of models without a limit of their own name, as BLOOM was trained.
_UNLIMITED = 2048


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GGUFModel:
    """A model in GGUF's terms.

    Args:
        architecture: as llama.cpp calls it.
        metadata: values by key, without the architecture before it.
        parts: where the parameters lie.
        more: tensors besides.
    """

    architecture: str
    metadata: dict[str, Any]
    parts: Parts
    more: tuple[Tensor, ...] = ()


def describe(family: str, config: ModelConfig) -> GGUFModel:
    """The model in GGUF's terms.

    Raises:
        ValueError: llama.cpp has no such model, or would compute something else.
    """
    if family not in _WRITERS:
        raise ValueError(
            f"a GGUF file holds one of {', '.join(_WRITERS)} here, not {family}: write a folder of our own "
            "(format oarlock)."
        )
    return _WRITERS[family](config)


def _common(c: Any, max_length: int) -> dict[str, Any]:
    return {
        "vocab_size": c.vocab_size,
        "context_length": max_length,
        "embedding_length": c.hidden_size,
        "block_count": c.num_layers,
        "feed_forward_length": c.intermediate_size,
        "attention.head_count": c.num_heads,
    }


def _llama(config: LlamaConfig) -> GGUFModel:
    c = config
    kind = "qwen2" if c.qkv_bias else "llama"
    if c.window is not None and c.window < c.max_length:
        raise ValueError(
            f"window must not hide tokens, but is {c.window} of {c.max_length} positions: programs that read "
            f"{kind} from GGUF files attend to all. Convert with a max_length of {c.window} at most."
        )
    metadata = _common(c, c.max_length) | {
        "attention.head_count_kv": c.num_kv_heads,
        "attention.key_length": c.head_size,
        "attention.value_length": c.head_size,
        "attention.layer_norm_rms_epsilon": float(c.norm_epsilon),
        "rope.dimension_count": c.head_size,
        "rope.freq_base": float(c.rope_theta),
    }
    more: tuple[Tensor, ...] = ()
    scaling = c.rope_scaling
    if scaling is not None:
        if scaling.kind in ("llama3", "divided"):
            more = (_divisors(c, scaling, kind),)
        else:
            metadata |= _scaling(scaling)
    names, experts = NAMES, ""
    if isinstance(c, MoEConfig):
        if c.qkv_bias:
            raise ValueError("qkv_bias must be False: llama.cpp has no such mixture of experts.")
        metadata |= {"expert_count": c.num_experts, "expert_used_count": c.experts_per_token}
        names, experts = EXPERTS, "stacked"
    return GGUFModel(
        architecture=kind,
        metadata=metadata,
        parts=parts.llama(c, names, adjacent=kind == "llama", experts=experts),
        more=more,
    )


def _divisors(c: LlamaConfig, scaling: RopeScaling, kind: str) -> Tensor:
    """Numbers by which the frequencies are divided, as the converter writes Llama 3's."""
    if kind != "llama":
        raise ValueError(
            f"rope_scaling of kind {scaling.kind} is not read of {kind} in GGUF files."
        )
    plain, scaled = (
        frequencies(c.head_size, c.rope_theta, one, c.max_length) for one in (None, scaling)
    )
    divisors = (plain / scaled).astype(np.float32)
    return Tensor(name=FREQUENCIES, shape=divisors.shape, kind="float32", given=divisors)


def _scaling(scaling: RopeScaling) -> dict[str, Any]:
    if scaling.kind == "linear":
        return {"rope.scaling.type": "linear", "rope.scaling.factor": float(scaling.factor)}
    if scaling.kind != "yarn" or not scaling.whole_pairs:
        detail = "" if scaling.kind == "dynamic" else " whose ramp begins between pairs"
        raise ValueError(
            f"rope_scaling must be linear, yarn or llama3 for GGUF, got {scaling.kind}{detail}."
        )
    usual = 0.1 * math.log(scaling.factor) + 1 if scaling.factor > 1 else 1.0
    more = 1.0 if scaling.length_factor is None else scaling.length_factor / usual
    return {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": float(scaling.factor),
        "rope.scaling.original_context_length": scaling.original_length,
        "rope.scaling.yarn_beta_slow": float(scaling.low_turns),
        "rope.scaling.yarn_beta_fast": float(scaling.high_turns),
        "rope.scaling.attn_factor": float(more),
    }


def _gpt(config: GPTConfig) -> GGUFModel:
    metadata = _common(config, config.max_length)
    metadata |= {"attention.layer_norm_epsilon": float(config.norm_epsilon)}
    placed = parts.gpt(config, JOINED, transposed=True)
    return GGUFModel(architecture="gpt2", metadata=metadata, parts=placed)


def _bloom(config: BloomConfig) -> GGUFModel:
    metadata = _common(config, _UNLIMITED) | {
        "attention.head_count_kv": config.num_heads,
        "attention.layer_norm_epsilon": float(config.norm_epsilon),
    }
    placed = parts.bloom(config, JOINED, by_head=False)
    return GGUFModel(architecture="bloom", metadata=metadata, parts=placed)


def _glm(config: GLMConfig) -> GGUFModel:
    c = config
    metadata = _common(c, c.max_length) | {
        "attention.head_count_kv": c.num_kv_heads,
        "attention.layer_norm_rms_epsilon": float(c.norm_epsilon),
        "rope.dimension_count": c.head_size // 2,
        "rope.freq_base": float(c.rope_theta),
    }
    placed = parts.glm(c, JOINED, tied=False, qkv_bias=True)
    return GGUFModel(architecture="chatglm", metadata=metadata, parts=placed)


_WRITERS: Mapping[str, Callable[[Any], GGUFModel]] = {
    "bloom": _bloom,
    "glm": _glm,
    "gpt": _gpt,
    "llama": _llama,
    "moe": _llama,
}
