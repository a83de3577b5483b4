"""Our configurations as Hugging Face's ``config.json``; ``loading.hugging_face_config`` reads them."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oarlock.llm.loading import parts
from oarlock.llm.loading.hugging_face_config import BLOOM, GLM, GPT, LLAMA, MIXTRAL
from oarlock.llm.loading.parts import Parts
from oarlock.llm.models.bloom import BloomConfig
from oarlock.llm.models.config import ModelConfig
from oarlock.llm.models.glm import GLMConfig
from oarlock.llm.models.gpt import GPTConfig
from oarlock.llm.models.llama import LlamaConfig
from oarlock.llm.models.moe import MoEConfig
from oarlock.llm.models.rope import RopeScaling, frequencies

#: Numbers with which Meta published Llama 3.1 and later; GGUF files have the outcome only, which tells another length.
_LOW_TURNS, _HIGH_TURNS, _ORIGINAL = 1.0, 4.0, 8192


def describe(family: str, config: ModelConfig) -> tuple[dict[str, Any], Parts]:
    """Fields of ``config.json``, and where the parameters lie.

    Raises:
        ValueError: transformers has no such model.
    """
    if family not in _WRITERS:
        raise ValueError(
            f"a Hugging Face folder holds one of {', '.join(_WRITERS)} here, not {family}: write a folder of "
            "our own (format oarlock)."
        )
    return _WRITERS[family](config)


def _llama(config: LlamaConfig) -> tuple[dict[str, Any], Parts]:
    c = config
    if c.qkv_bias:
        kind, architecture = "qwen2", "Qwen2ForCausalLM"
    elif c.window is not None:
        kind, architecture = "mistral", "MistralForCausalLM"
    else:
        kind, architecture = "llama", "LlamaForCausalLM"
    fields = {"model_type": kind, "architectures": [architecture]} | _llama_fields(c)
    if kind == "llama":
        fields |= {"attention_bias": False, "mlp_bias": False}
    elif kind == "mistral":
        fields |= {"sliding_window": c.window}
    elif c.window is not None:
        fields |= {"use_sliding_window": True, "sliding_window": c.window, "max_window_layers": 0}
    else:
        fields |= {"use_sliding_window": False}
    return fields, parts.llama(c, LLAMA, adjacent=False)


def _llama_fields(c: LlamaConfig) -> dict[str, Any]:
    return {
        "vocab_size": c.vocab_size,
        "hidden_size": c.hidden_size,
        "num_hidden_layers": c.num_layers,
        "num_attention_heads": c.num_heads,
        "num_key_value_heads": c.num_kv_heads,
        "head_dim": c.head_size,
        "intermediate_size": c.intermediate_size,
        "hidden_act": "silu",
        "rms_norm_eps": c.norm_epsilon,
        "tie_word_embeddings": c.tie_embeddings,
        "max_position_embeddings": c.max_length,
        "rope_theta": c.rope_theta,
    } | _scaling(c)


def _scaling(c: LlamaConfig) -> dict[str, Any]:
    scaling = c.rope_scaling
    if scaling is None:
        return {"rope_scaling": None}
    if scaling.kind == "divided":
        scaling = _llama3(c, scaling)
    fields: dict[str, Any] = {"rope_type": scaling.kind, "factor": scaling.factor}
    length = c.max_length
    if scaling.kind == "dynamic":
        assert scaling.original_length is not None
        length = scaling.original_length
    elif scaling.kind == "llama3":
        fields |= {"low_freq_factor": scaling.low_turns, "high_freq_factor": scaling.high_turns}
    elif scaling.kind == "yarn":
        fields |= {"beta_slow": scaling.low_turns, "beta_fast": scaling.high_turns}
        fields |= {"truncate": scaling.whole_pairs}
        if scaling.length_factor is not None:
            fields["attention_factor"] = scaling.length_factor
    if scaling.kind in ("llama3", "yarn"):
        fields["original_max_position_embeddings"] = scaling.original_length
    return {"rope_scaling": fields, "max_position_embeddings": length}


def _llama3(c: LlamaConfig, divided: RopeScaling) -> RopeScaling:
    """Llama 3's scaling of which a GGUF file tells the divisors."""
    factor = max(divided.divisors)
    plain, theirs = (
        frequencies(c.head_size, c.rope_theta, one, c.max_length) for one in (None, divided)
    )
    found = RopeScaling(
        kind="llama3",
        factor=factor,
        original_length=_original_length(plain, theirs / plain, factor),
        low_turns=_LOW_TURNS,
        high_turns=_HIGH_TURNS,
    )
    ours = frequencies(c.head_size, c.rope_theta, found, c.max_length)
    if np.allclose(ours, theirs, rtol=1e-5, atol=0):
        return found
    raise ValueError(
        "rotary frequencies are divided by numbers that no rope_scaling of transformers gives: write GGUF "
        "or a folder of our own (format oarlock)."
    )


def _original_length(plain: NDArray[np.float64], slowed: NDArray[np.float64], factor: float) -> int:
    """Positions that the model was first trained on, as the pairs on the ramp tell them.

    A pair of frequency f is slowed to s f, s = k + (1 - k) / factor, where k grows from 0 to 1 while the turns
    f L / 2 pi grow from ``_LOW_TURNS`` to ``_HIGH_TURNS``. Without such a pair: Meta's.
    """
    ramp = (slowed > (1 + 1e-5) / factor) & (slowed < 1 - 1e-5)
    if not ramp.any():
        return _ORIGINAL
    kept = (slowed[ramp] - 1 / factor) / (1 - 1 / factor)
    turns = _LOW_TURNS + kept * (_HIGH_TURNS - _LOW_TURNS)
    return max(1, round(float(np.median(turns * 2 * math.pi / plain[ramp]))))


def _moe(config: MoEConfig) -> tuple[dict[str, Any], Parts]:
    c = config
    if c.qkv_bias:
        raise ValueError("qkv_bias must be False: transformers has no such mixture of experts.")
    fields = {"model_type": "mixtral", "architectures": ["MixtralForCausalLM"]} | _llama_fields(c)
    fields |= {
        "num_local_experts": c.num_experts,
        "num_experts_per_tok": c.experts_per_token,
        "sliding_window": c.window,
    }
    return fields, parts.llama(c, MIXTRAL, adjacent=False, experts="apart")


def _glm(config: GLMConfig) -> tuple[dict[str, Any], Parts]:
    c = config
    fields = {
        "model_type": "glm",
        "architectures": ["GlmForCausalLM"],
        "vocab_size": c.vocab_size,
        "hidden_size": c.hidden_size,
        "num_hidden_layers": c.num_layers,
        "num_attention_heads": c.num_heads,
        "num_key_value_heads": c.num_kv_heads,
        "head_dim": c.head_size,
        "intermediate_size": c.intermediate_size,
        "hidden_act": "silu",
        "rms_norm_eps": c.norm_epsilon,
        "tie_word_embeddings": False,
        "max_position_embeddings": c.max_length,
        "rope_theta": c.rope_theta,
        "attention_bias": True,
        "partial_rotary_factor": 0.5,
    }
    return fields, parts.glm(c, GLM, tied=False, qkv_bias=True)


def _gpt(config: GPTConfig) -> tuple[dict[str, Any], Parts]:
    c = config
    fields = {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": c.vocab_size,
        "n_embd": c.hidden_size,
        "n_layer": c.num_layers,
        "n_head": c.num_heads,
        "n_inner": c.intermediate_size,
        "n_positions": c.max_length,
        "layer_norm_epsilon": c.norm_epsilon,
        "activation_function": "gelu_new",
        "tie_word_embeddings": True,
    }
    return fields, parts.gpt(c, GPT, transposed=False)


def _bloom(config: BloomConfig) -> tuple[dict[str, Any], Parts]:
    c = config
    if c.intermediate_size != 4 * c.hidden_size:
        raise ValueError(
            f"intermediate_size must be 4 hidden_size = {4 * c.hidden_size} for BLOOM in transformers, got "
            f"{c.intermediate_size}."
        )
    fields = {
        "model_type": "bloom",
        "architectures": ["BloomForCausalLM"],
        "vocab_size": c.vocab_size,
        "hidden_size": c.hidden_size,
        "n_layer": c.num_layers,
        "n_head": c.num_heads,
        "layer_norm_epsilon": c.norm_epsilon,
        "apply_residual_connection_post_layernorm": False,
        "tie_word_embeddings": True,
    }
    return fields, parts.bloom(c, BLOOM, by_head=True)


_WRITERS: Mapping[str, Callable[[Any], tuple[dict[str, Any], Parts]]] = {
    "bloom": _bloom,
    "glm": _glm,
    "gpt": _gpt,
    "llama": _llama,
    "moe": _moe,
}
