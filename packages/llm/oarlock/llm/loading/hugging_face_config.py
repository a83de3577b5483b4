"""What Hugging Face's ``config.json`` says of a model, in our terms.

A field that changes what is computed and that our models do not have is refused, never passed over.

Source: github.com/huggingface/transformers, ``models/*/configuration_*.py``, and the model
repositories of ChatGLM2 and ChatGLM3, whose code is their own.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from oarlock.llm.loading import parts
from oarlock.llm.loading.fields import Fields
from oarlock.llm.loading.parts import Names, Parts
from oarlock.llm.models import bloom, glm, gpt, llama, moe
from oarlock.llm.models.config import ModelConfig
from oarlock.llm.models.rope import RopeScaling

_OTHER = "our models compute nothing else"
LLAMA = Names(
    top={"embedding": "model.embed_tokens", "norm": "model.norm", "head": "lm_head"},
    block="model.layers.{i}.",
    parts={
        "attention_norm": "input_layernorm",
        "feed_forward_norm": "post_attention_layernorm",
        "query": "self_attn.q_proj",
        "key": "self_attn.k_proj",
        "value": "self_attn.v_proj",
        "out": "self_attn.o_proj",
        "gate": "mlp.gate_proj",
        "up": "mlp.up_proj",
        "down": "mlp.down_proj",
    },
)
MIXTRAL = dataclasses.replace(
    LLAMA,
    parts={
        **LLAMA.parts,
        "router": "block_sparse_moe.gate",
        "gate": "block_sparse_moe.experts.{e}.w1",
        "down": "block_sparse_moe.experts.{e}.w2",
        "up": "block_sparse_moe.experts.{e}.w3",
    },
)
GLM = dataclasses.replace(
    LLAMA,
    parts={name: LLAMA.parts[name] for name in LLAMA.parts if name not in ("gate", "up")}
    | {"gate_up": "mlp.gate_up_proj"},
)
CHATGLM = Names(
    top={
        "embedding": "transformer.embedding.word_embeddings",
        "norm": "transformer.encoder.final_layernorm",
        "head": "transformer.output_layer",
    },
    block="transformer.encoder.layers.{i}.",
    parts={
        "attention_norm": "input_layernorm",
        "feed_forward_norm": "post_attention_layernorm",
        "qkv": "self_attention.query_key_value",
        "out": "self_attention.dense",
        "gate_up": "mlp.dense_h_to_4h",
        "down": "mlp.dense_4h_to_h",
    },
)
GPT = Names(
    top={
        "embedding": "transformer.wte",
        "positions": "transformer.wpe",
        "norm": "transformer.ln_f",
    },
    block="transformer.h.{i}.",
    parts={
        "attention_norm": "ln_1",
        "feed_forward_norm": "ln_2",
        "qkv": "attn.c_attn",
        "out": "attn.c_proj",
        "up": "mlp.c_fc",
        "down": "mlp.c_proj",
    },
)
BLOOM = Names(
    top={
        "embedding": "transformer.word_embeddings",
        "embedding_norm": "transformer.word_embeddings_layernorm",
        "norm": "transformer.ln_f",
    },
    block="transformer.h.{i}.",
    parts={
        "attention_norm": "input_layernorm",
        "feed_forward_norm": "post_attention_layernorm",
        "qkv": "self_attention.query_key_value",
        "out": "self_attention.dense",
        "up": "mlp.dense_h_to_4h",
        "down": "mlp.dense_4h_to_h",
    },
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """A model and where its parameters lie.

    Args:
        family: of ``oarlock.llm.models``.
        config: of the model.
        parts: makes the parameters' parts; to be called when the sizes are known to fit the file.
        prefix: that files may leave out of all names.
        ignored: ends of names that files may have besides.
    """

    family: str
    config: ModelConfig
    parts: Callable[[], Parts]
    prefix: str = ""
    ignored: tuple[str, ...] = ()


def describe(fields: Fields) -> Description:
    """The model that a configuration stands for.

    Raises:
        ValueError: the architecture or a field's value is none of ours.
    """
    kind = fields.text("model_type")
    if kind not in _READERS:
        raise ValueError(
            f"{fields.source}: model_type must be one of {', '.join(_READERS)}, got {kind!r}."
        )
    return _READERS[kind](fields)


def _rope(fields: Fields, max_length: int) -> tuple[float, RopeScaling | None]:
    """Base and scaling; transformers 5 has both in one field."""
    found: Mapping[str, Any] = fields.mapping("rope_parameters", "rope_scaling", default={})
    rope = Fields(found, f"{fields.source}, rope_scaling")
    theta = rope.number("rope_theta", default=None) or fields.number("rope_theta", default=10000.0)
    kind = rope.text("rope_type", "type", default="default")
    if kind == "default":
        return theta, None
    original = rope.integer("original_max_position_embeddings", default=max_length)
    factor = rope.number("factor")
    if kind == "linear":
        return theta, RopeScaling(kind="linear", factor=factor)
    if kind == "dynamic":
        return theta, RopeScaling(kind="dynamic", factor=factor, original_length=max_length)
    if kind == "llama3":
        return theta, RopeScaling(
            kind="llama3",
            factor=factor,
            original_length=original,
            low_turns=rope.number("low_freq_factor"),
            high_turns=rope.number("high_freq_factor"),
        )
    if kind == "yarn":
        return theta, RopeScaling(
            kind="yarn",
            factor=factor,
            original_length=original,
            low_turns=rope.number("beta_slow", default=1.0),
            high_turns=rope.number("beta_fast", default=32.0),
            whole_pairs=rope.flag("truncate", default=True),
            length_factor=_yarn_length(rope, factor),
        )
    raise ValueError(
        f"{rope.source}: rope_type must be default, linear, dynamic, yarn or llama3, got {kind!r}."
    )


def _yarn_length(rope: Fields, factor: float) -> float | None:
    given = rope.number("attention_factor", default=None)
    if given is not None or "mscale" not in rope or "mscale_all_dim" not in rope:
        return given
    whole, part = (
        0.1 * rope.number(name) * math.log(factor) + 1 if factor > 1 else 1.0
        for name in ("mscale_all_dim", "mscale")
    )
    return part / whole


def _llama_fields(fields: Fields) -> dict[str, Any]:
    fields.must_be("hidden_act", "silu", why=_OTHER)
    fields.must_be("mlp_bias", False, why=_OTHER)
    max_length = fields.integer("max_position_embeddings", default=2048)
    theta, scaling = _rope(fields, max_length)
    if scaling is not None and scaling.kind == "dynamic":
        max_length = int(max_length * scaling.factor)
    heads = fields.integer("num_attention_heads")
    return dict(
        vocab_size=fields.integer("vocab_size"),
        hidden_size=fields.integer("hidden_size"),
        num_layers=fields.integer("num_hidden_layers"),
        num_heads=heads,
        num_kv_heads=fields.integer("num_key_value_heads", default=heads),
        head_size=fields.integer("head_dim", default=None),
        intermediate_size=fields.integer("intermediate_size"),
        max_length=max_length,
        rope_theta=theta,
        rope_scaling=scaling,
        norm_epsilon=fields.number("rms_norm_eps", default=1e-6),
        tie_embeddings=fields.flag("tie_word_embeddings", default=False),
    )


def _llama(fields: Fields, **changes: Any) -> Description:
    config = llama.LlamaConfig(**_llama_fields(fields) | changes)
    return Description(
        family="llama",
        config=config,
        parts=lambda: parts.llama(config, LLAMA, adjacent=False),
        ignored=_tied_head(config.tie_embeddings, "lm_head.weight") + ("rotary_emb.inv_freq",),
    )


def _tied_head(tied: bool, name: str) -> tuple[str, ...]:
    """A tied head may be in the file again."""
    return (name,) if tied else ()


def _plain_llama(fields: Fields) -> Description:
    fields.must_be("attention_bias", False, why="its bias on the output has no place here")
    return _llama(fields)


def _mistral(fields: Fields) -> Description:
    return _llama(fields, window=fields.integer("sliding_window", default=None))


def _qwen2(fields: Fields) -> Description:
    window, layers = None, fields.integer("num_hidden_layers")
    if fields.flag("use_sliding_window", default=False) and "sliding_window" in fields:
        first = fields.integer("max_window_layers", default=0)
        if 0 < first < layers:
            raise ValueError(
                f"{fields.source}: max_window_layers must be 0 or num_hidden_layers = {layers}, "
                f"got {first}: a window of some layers only is not supported."
            )
        window = fields.integer("sliding_window") if first == 0 else None
    return _llama(fields, qkv_bias=True, window=window)


def _mixtral(fields: Fields) -> Description:
    config = moe.MoEConfig(
        **_llama_fields(fields),
        window=fields.integer("sliding_window", default=None),
        num_experts=fields.integer("num_local_experts"),
        experts_per_token=fields.integer("num_experts_per_tok"),
    )
    return Description(
        family="moe",
        config=config,
        parts=lambda: parts.llama(config, MIXTRAL, adjacent=False, experts="apart"),
        ignored=_tied_head(config.tie_embeddings, "lm_head.weight") + ("rotary_emb.inv_freq",),
    )


def _glm(fields: Fields) -> Description:
    common = _llama_fields(fields)
    size, scaling, tied = (
        common.pop(name) for name in ("head_size", "rope_scaling", "tie_embeddings")
    )
    width = common["hidden_size"] // max(common["num_heads"], 1)
    if scaling is not None or size not in (None, width):
        raise ValueError(
            f"{fields.source}: head_dim must be {width} and rope_scaling absent, got {size} and "
            f"{scaling}."
        )
    partial = fields.number("partial_rotary_factor", default=0.5)
    if partial != 0.5:
        raise ValueError(f"{fields.source}: partial_rotary_factor must be 0.5, got {partial}.")
    config = glm.GLMConfig(**common)
    bias = fields.flag("attention_bias", default=False)
    return Description(
        family="glm",
        config=config,
        parts=lambda: parts.glm(config, GLM, tied=tied, qkv_bias=bias),
        ignored=_tied_head(tied, "lm_head.weight") + ("rotary_emb.inv_freq",),
    )


def _chatglm(fields: Fields) -> Description:
    for name, right in (
        ("rmsnorm", True),
        ("original_rope", True),
        ("post_layer_norm", True),
        ("add_bias_linear", False),
        ("apply_residual_connection_post_layernorm", False),
    ):
        fields.must_be(name, right, why=_OTHER)
    heads = fields.integer("num_attention_heads")
    grouped = fields.flag("multi_query_attention", default=False)
    config = glm.GLMConfig(
        vocab_size=fields.integer("padded_vocab_size", "vocab_size"),
        hidden_size=fields.integer("hidden_size"),
        num_layers=fields.integer("num_layers"),
        num_heads=heads,
        num_kv_heads=fields.integer("multi_query_group_num") if grouped else heads,
        intermediate_size=fields.integer("ffn_hidden_size"),
        max_length=fields.integer("seq_length", default=2048),
        rope_theta=10000.0 * fields.number("rope_ratio", default=1.0),
        norm_epsilon=fields.number("layernorm_epsilon", default=1e-5),
    )
    if fields.integer("kv_channels", default=config.head_size) != config.head_size:
        raise ValueError(
            f"{fields.source}: kv_channels must be hidden_size / num_attention_heads = "
            f"{config.head_size}, got {fields.integer('kv_channels')}."
        )
    bias = fields.flag("add_qkv_bias", default=False)
    tied = fields.flag("tie_word_embeddings", default=False)
    return Description(
        family="glm",
        config=config,
        parts=lambda: parts.glm(config, CHATGLM, tied=tied, qkv_bias=bias),
        ignored=("transformer.rotary_pos_emb.inv_freq",),
    )


def _gpt2(fields: Fields) -> Description:
    for name, right in (
        ("activation_function", "gelu_new"),
        ("scale_attn_weights", True),
        ("scale_attn_by_inverse_layer_idx", False),
        ("reorder_and_upcast_attn", False),
        ("add_cross_attention", False),
        ("tie_word_embeddings", True),
    ):
        fields.must_be(name, right, why=_OTHER)
    width = fields.integer("n_embd", "hidden_size", default=768)
    config = gpt.GPTConfig(
        vocab_size=fields.integer("vocab_size"),
        hidden_size=width,
        num_layers=fields.integer("n_layer", "num_hidden_layers", default=12),
        num_heads=fields.integer("n_head", "num_attention_heads", default=12),
        intermediate_size=fields.integer("n_inner", default=4 * width),
        max_length=fields.integer("n_positions", "n_ctx", default=1024),
        norm_epsilon=fields.number("layer_norm_epsilon", default=1e-5),
    )
    return Description(
        family="gpt",
        config=config,
        parts=lambda: parts.gpt(config, GPT, transposed=False),
        prefix="transformer.",
        ignored=("lm_head.weight", ".attn.bias", ".attn.masked_bias"),
    )


def _bloom(fields: Fields) -> Description:
    for name, right in (
        ("apply_residual_connection_post_layernorm", False),
        ("tie_word_embeddings", True),
    ):
        fields.must_be(name, right, why=_OTHER)
    config = bloom.BloomConfig(
        vocab_size=fields.integer("vocab_size"),
        hidden_size=fields.integer("hidden_size", "n_embed"),
        num_layers=fields.integer("n_layer", "num_hidden_layers"),
        num_heads=fields.integer("n_head", "num_attention_heads"),
        norm_epsilon=fields.number("layer_norm_epsilon", default=1e-5),
    )
    return Description(
        family="bloom",
        config=config,
        parts=lambda: parts.bloom(config, BLOOM, by_head=True),
        prefix="transformer.",
        ignored=("lm_head.weight",),
    )


_READERS: dict[str, Callable[[Fields], Description]] = {
    "bloom": _bloom,
    "chatglm": _chatglm,
    "glm": _glm,
    "gpt2": _gpt2,
    "llama": _plain_llama,
    "mistral": _mistral,
    "mixtral": _mixtral,
    "qwen2": _qwen2,
}
