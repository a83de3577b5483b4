"""LLaMAs with llama2.c's tokenizer as Hugging Face folders, which every library reads."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tokenizers
from safetensors.numpy import save_file
from tokenizers import decoders, models, normalizers, processors

from oarlock.accept import data
from oarlock.llm import weights
from oarlock.llm.loading import parts
from oarlock.llm.models.llama import Llama, LlamaConfig
from oarlock.llm.tokenizers import Llama2cTokenizer

SPACE = "\u2581"
_SPECIAL = ("<unk>", "<s>", "</s>")
#: transformers' names of parts of a block.
_PARTS = {
    "attention_norm": "input_layernorm",
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.out": "self_attn.o_proj",
    "feed_forward_norm": "post_attention_layernorm",
    "feed_forward.gate": "mlp.gate_proj",
    "feed_forward.up": "mlp.up_proj",
    "feed_forward.down": "mlp.down_proj",
}
_TOP = {"embedding": "model.embed_tokens", "norm": "model.norm", "head": "lm_head"}


def stories() -> tuple[Llama, Llama2cTokenizer]:
    """stories260K and its tokenizer."""
    model = weights.load_llama2c(data.path("stories260K", "stories260K.bin"))
    return model, Llama2cTokenizer.from_file(data.path("stories260K", "tok512.bin"))


def write(model: Llama, tokenizer: Llama2cTokenizer, folder: Path) -> None:
    """Write ``config.json``, ``model.safetensors`` and the tokenizer's files, all in float32."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, tensor in model.state_dict().items():
        theirs, array = _theirs(name, tensor.numpy(), model)
        tensors[theirs] = np.ascontiguousarray(array)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    c = model.config
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": c.vocab_size,
        "hidden_size": c.hidden_size,
        "intermediate_size": c.intermediate_size,
        "num_hidden_layers": c.num_layers,
        "num_attention_heads": c.num_heads,
        "num_key_value_heads": c.num_kv_heads,
        "max_position_embeddings": c.max_length,
        "rms_norm_eps": c.norm_epsilon,
        "rope_theta": c.rope_theta,
        "tie_word_embeddings": c.tie_embeddings,
        "hidden_act": "silu",
        "torch_dtype": "float32",
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    _write_json(folder / "config.json", config)
    _tokenizer(tokenizer).save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": "<unk>",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "model_max_length": c.max_length,
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": True,  # "<unk>" in WikiText is text
    }
    _write_json(folder / "tokenizer_config.json", settings)


def write_shape(shape: Mapping[str, int], folder: Path, *, seed: int) -> int:
    """Write stories260K, or a LLaMA of a shape with random weights and its tokenizer; the number of weights."""
    model, tokenizer = stories()
    if shape:
        config = LlamaConfig(vocab_size=tokenizer.vocab_size, **shape)  # type: ignore[arg-type]
        model = Llama(config, seed=seed)
    write(model, tokenizer, folder)
    return model.num_parameters()


def _theirs(name: str, array: np.ndarray, model: Llama) -> tuple[str, np.ndarray]:
    """transformers' name and layout, [out, in], of a parameter of ours."""
    part = name.removesuffix(".weight")
    if not part.startswith("blocks."):
        return f"{_TOP[part]}.weight", array.T if part == "head" else array
    _, i, part = part.split(".", 2)
    if array.ndim == 2:
        array = array.T
    heads = {
        "attention.query": model.config.num_heads,
        "attention.key": model.config.num_kv_heads,
    }
    if part in heads:  # ours turns adjacent pairs, theirs a head's halves
        order = parts.pairs_from_halves(heads[part], model.config.head_size)
        array = array[np.argsort(order)]
    return f"model.layers.{i}.{_PARTS[part]}.weight", array


def _tokenizer(ours: Llama2cTokenizer) -> tokenizers.Tokenizer:
    """The same joins in the terms of the ``tokenizers`` library: pairs in the order of their unions' scores."""
    texts = [_text(piece) for piece in ours.pieces]
    vocabulary = {**dict(zip(_SPECIAL, range(3))), **{t: i for i, t in enumerate(texts) if i > 2}}
    merges = _merges(texts, ours.scores)
    made = tokenizers.Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True)
    )
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)]
    )
    made.decoder = decoders.Sequence(
        [
            decoders.Replace(SPACE, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    made.add_special_tokens(list(_SPECIAL))
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    return made


def _text(piece: bytes) -> str:
    return piece.decode().replace(" ", SPACE)


def _merges(texts: Sequence[str], scores: Sequence[float]) -> list[tuple[str, str]]:
    first = 3 + 256  # special tokens and bytes are joined from nothing
    known = set(texts[first:])
    order = sorted(range(first, len(texts)), key=lambda i: -scores[i])
    return [
        (texts[i][:cut], texts[i][cut:])
        for i in order
        for cut in range(1, len(texts[i]))
        if texts[i][:cut] in known and texts[i][cut:] in known
    ]


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
