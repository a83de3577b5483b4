"""Models in GGUF files: metadata to configuration, names of tensors.

LLaMA's queries and keys are stored with adjacent pairs, as ours; Qwen2's with halves. A LLaMA with
experts is a Mixtral. Scaled rotary positions come as metadata or, for Llama 3, as the tensor
``rope_freqs.weight``.

Source: github.com/ggml-org/llama.cpp, ``gguf-py/gguf/constants.py`` and ``conversion/``.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from oarlock.llm.loading import parts
from oarlock.llm.loading.fields import Fields
from oarlock.llm.loading.gguf_file import GGUFFile
from oarlock.llm.loading.hugging_face_config import Description
from oarlock.llm.loading.parts import Names
from oarlock.llm.loading.stored import Stored
from oarlock.llm.models import bloom, glm, gpt, llama, moe
from oarlock.llm.models.rope import RopeScaling

FREQUENCIES = "rope_freqs.weight"
NAMES = Names(
    top={
        "embedding": "token_embd",
        "positions": "position_embd",
        "embedding_norm": "token_embd_norm",
        "norm": "output_norm",
        "head": "output",
    },
    block="blk.{i}.",
    parts={
        "attention_norm": "attn_norm",
        "feed_forward_norm": "ffn_norm",
        "query": "attn_q",
        "key": "attn_k",
        "value": "attn_v",
        "out": "attn_output",
        "gate": "ffn_gate",
        "up": "ffn_up",
        "down": "ffn_down",
    },
)


def _with(**more: str) -> Names:
    return Names(top=NAMES.top, block=NAMES.block, parts={**NAMES.parts, **more})


JOINED = _with(qkv="attn_qkv", gate_up="ffn_up")
EXPERTS = _with(router="ffn_gate_inp", gate="ffn_gate_exps", up="ffn_up_exps", down="ffn_down_exps")


def describe(file: GGUFFile) -> Description:
    """The model in a file.

    Raises:
        ValueError: the architecture or a value is none of ours, or metadata are missing.
    """
    kind = Fields(file.metadata, str(file.path)).text("general.architecture")
    start = f"{kind}."
    values = {
        key.removeprefix(start): value
        for key, value in file.metadata.items()
        if key.startswith(start)
    }
    fields = Fields(values, f"{file.path}, {kind}")
    if kind in ("llama", "qwen2"):
        return _llama(fields, file, qwen2=kind == "qwen2")
    if kind == "gpt2":
        return _gpt2(fields, file.tensors)
    if kind == "bloom":
        return _bloom(fields, file.tensors)
    if kind == "chatglm":
        return _chatglm(fields, file.tensors)
    raise ValueError(
        f"{file.path}: general.architecture must be bloom, chatglm, gpt2, llama or qwen2, got {kind!r}."
    )


def _rows(tensors: Mapping[str, Stored], name: str, source: str) -> int:
    """First dimension of a tensor, which must be there."""
    if name not in tensors:
        raise ValueError(f"{source}: tensor {name} is missing.")
    return tensors[name].shape[0]


def _llama(fields: Fields, file: GGUFFile, *, qwen2: bool) -> Description:
    tensors, heads = file.tensors, fields.integer("attention.head_count")
    width = fields.integer("embedding_length")
    size = fields.integer("attention.key_length", default=width // max(heads, 1))
    for name in ("attention.value_length", "rope.dimension_count"):
        fields.must_be(name, size, why="heads are of one size and turned as a whole")
    common: dict[str, Any] = dict(
        vocab_size=_rows(tensors, "token_embd.weight", fields.source),
        hidden_size=width,
        num_layers=fields.integer("block_count"),
        num_heads=heads,
        num_kv_heads=fields.integer("attention.head_count_kv", default=heads),
        head_size=size,
        intermediate_size=fields.integer("feed_forward_length"),
        max_length=fields.integer("context_length"),
        rope_theta=fields.number("rope.freq_base", default=10000.0),
        rope_scaling=_scaling(fields, tensors),
        norm_epsilon=fields.number("attention.layer_norm_rms_epsilon"),
        tie_embeddings="output.weight" not in tensors,
        qkv_bias="blk.0.attn_q.bias" in tensors,
        window=fields.integer("attention.sliding_window", default=None),
    )
    num_experts = fields.integer("expert_count", default=0)
    if num_experts:
        config: llama.LlamaConfig = moe.MoEConfig(
            **common,
            num_experts=num_experts,
            experts_per_token=fields.integer("expert_used_count"),
        )
    else:
        config = llama.LlamaConfig(**common)
    names, experts = (EXPERTS, "stacked") if num_experts else (NAMES, "")
    return Description(
        family="moe" if num_experts else "llama",
        config=config,
        parts=lambda: parts.llama(config, names, adjacent=not qwen2, experts=experts),
        ignored=(FREQUENCIES,),
    )


def _scaling(fields: Fields, tensors: Mapping[str, Stored]) -> RopeScaling | None:
    kind = fields.text("rope.scaling.type", default="none")
    if FREQUENCIES in tensors:
        if kind != "none":
            raise ValueError(f"{fields.source}: rope.scaling.type must be none with {FREQUENCIES}.")
        stored = tensors[FREQUENCIES]
        if stored.format != "float32" or len(stored.shape) != 1:
            raise ValueError(
                f"{fields.source}: {FREQUENCIES} must be a row of float32, is {stored.format} of "
                f"shape {stored.shape}."
            )
        divisors = np.asarray(stored.read()).tolist()
        return RopeScaling(kind="divided", divisors=tuple(divisors))
    if kind == "none":
        return None
    factor = fields.number("rope.scaling.factor")
    if kind == "linear":
        return RopeScaling(kind="linear", factor=factor)
    if kind != "yarn":
        raise ValueError(
            f"{fields.source}: rope.scaling.type must be none, linear or yarn, got {kind!r}."
        )
    # llama.cpp multiplies what the paper gives
    more = fields.number("rope.scaling.attn_factor", default=1.0)
    return RopeScaling(
        kind="yarn",
        factor=factor,
        original_length=fields.integer("rope.scaling.original_context_length"),
        low_turns=fields.number("rope.scaling.yarn_beta_slow", default=1.0),
        high_turns=fields.number("rope.scaling.yarn_beta_fast", default=32.0),
        length_factor=more * (0.1 * math.log(factor) + 1) if factor > 1 else more,
    )


def _gpt2(fields: Fields, tensors: Mapping[str, Stored]) -> Description:
    config = gpt.GPTConfig(
        vocab_size=_rows(tensors, "token_embd.weight", fields.source),
        hidden_size=fields.integer("embedding_length"),
        num_layers=fields.integer("block_count"),
        num_heads=fields.integer("attention.head_count"),
        intermediate_size=fields.integer("feed_forward_length"),
        max_length=fields.integer("context_length"),
        norm_epsilon=fields.number("attention.layer_norm_epsilon"),
    )
    return Description(
        family="gpt",
        config=config,
        parts=lambda: parts.gpt(config, JOINED, transposed=True),
        ignored=("output.weight",),  # the embedding again, which our model is tied to
    )


def _bloom(fields: Fields, tensors: Mapping[str, Stored]) -> Description:
    config = bloom.BloomConfig(
        vocab_size=_rows(tensors, "token_embd.weight", fields.source),
        hidden_size=fields.integer("embedding_length"),
        num_layers=fields.integer("block_count"),
        num_heads=fields.integer("attention.head_count"),
        intermediate_size=fields.integer("feed_forward_length"),
        norm_epsilon=fields.number("attention.layer_norm_epsilon"),
    )
    return Description(
        family="bloom",
        config=config,
        parts=lambda: parts.bloom(config, JOINED, by_head=False),
        ignored=("output.weight",),
    )


def _chatglm(fields: Fields, tensors: Mapping[str, Stored]) -> Description:
    config = glm.GLMConfig(
        vocab_size=_rows(tensors, "token_embd.weight", fields.source),
        hidden_size=fields.integer("embedding_length"),
        num_layers=fields.integer("block_count"),
        num_heads=fields.integer("attention.head_count"),
        num_kv_heads=fields.integer("attention.head_count_kv"),
        intermediate_size=fields.integer("feed_forward_length"),
        max_length=fields.integer("context_length"),
        rope_theta=fields.number("rope.freq_base", default=10000.0),
        norm_epsilon=fields.number("attention.layer_norm_rms_epsilon"),
    )
    fields.must_be("rope.dimension_count", config.head_size // 2, why="half of a head is turned")
    tied = "output.weight" not in tensors
    bias = "blk.0.attn_qkv.bias" in tensors
    return Description(
        family="glm",
        config=config,
        parts=lambda: parts.glm(config, JOINED, tied=tied, qkv_bias=bias),
        ignored=(FREQUENCIES,),
    )
