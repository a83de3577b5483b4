"""Record the logits of Hugging Face's implementations for the small models of ``conftest.py``.

Two environments are needed, because this package does not depend on PyTorch:

    python record.py export FOLDER   # with this package: configuration and weights of each model
    python record.py run FOLDER      # with torch and transformers 4: writes expected/<model>.json

Last recorded with torch 2.13.0 and transformers 4.57.6.
"""

import json
import sys
from pathlib import Path

import numpy as np

EXPECTED = Path(__file__).parent / "expected"


def export(folder: Path) -> None:
    from oarlock.llm import models

    sys.path.append(str(Path(__file__).parent.parent))
    from conftest import CONFIGS, TOKENS, VOCAB_SIZE, draw

    folder.mkdir(parents=True, exist_ok=True)
    for name, fields in CONFIGS.items():
        fields = {"vocab_size": VOCAB_SIZE} | fields
        model = models.create(name, models.config_class(name)(**fields))
        (folder / f"{name}.json").write_text(json.dumps([fields, TOKENS.tolist()]))
        weights = {key: draw(key, value.shape) for key, value in model.state_dict().items()}
        np.savez(folder / f"{name}.npz", **weights)


def halves(weight_DN: np.ndarray, head_size: int) -> np.ndarray:
    """Order a head's adjacent pairs as Hugging Face's LLaMA does: first members, then second."""
    D, N = weight_DN.shape
    pairs = weight_DN.reshape(D, N // head_size, head_size // 2, 2)
    return pairs.transpose(0, 1, 3, 2).reshape(D, N)


def gpt(c, w):
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=c["vocab_size"],
            n_positions=c["max_length"],
            n_embd=c["hidden_size"],
            n_layer=c["num_layers"],
            n_head=c["num_heads"],
            n_inner=c["intermediate_size"],
        )
    )
    out = {"wte.weight": w["embedding.weight"], "wpe.weight": w["position_embedding.weight"]}
    for i in range(c["num_layers"]):
        ours, theirs = f"blocks.{i}.", f"h.{i}."
        for part in ("weight", "bias"):
            out[f"{theirs}ln_1.{part}"] = w[f"{ours}attention_norm.{part}"]
            out[f"{theirs}ln_2.{part}"] = w[f"{ours}feed_forward_norm.{part}"]
            out[f"{theirs}attn.c_attn.{part}"] = np.concatenate(
                [w[f"{ours}attention.{name}.{part}"] for name in ("query", "key", "value")], -1
            )
            out[f"{theirs}attn.c_proj.{part}"] = w[f"{ours}attention.out.{part}"]
            out[f"{theirs}mlp.c_fc.{part}"] = w[f"{ours}feed_forward.up.{part}"]
            out[f"{theirs}mlp.c_proj.{part}"] = w[f"{ours}feed_forward.down.{part}"]
    out |= {"ln_f.weight": w["norm.weight"], "ln_f.bias": w["norm.bias"]}
    return model, {f"transformer.{key}": value for key, value in out.items()}


def _llama_fields(c):
    return dict(
        vocab_size=c["vocab_size"],
        hidden_size=c["hidden_size"],
        num_hidden_layers=c["num_layers"],
        num_attention_heads=c["num_heads"],
        num_key_value_heads=c["num_kv_heads"],
        head_dim=c["hidden_size"] // c["num_heads"],
        intermediate_size=c["intermediate_size"],
        max_position_embeddings=c["max_length"],
        rope_theta=c.get("rope_theta", 10000.0),
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        pad_token_id=None,
    )


def _llama_attention(c, w, out):
    size = c["hidden_size"] // c["num_heads"]
    out["model.embed_tokens.weight"] = w["embedding.weight"]
    out["model.norm.weight"] = w["norm.weight"]
    out["lm_head.weight"] = w["head.weight"].T
    for i in range(c["num_layers"]):
        ours, theirs = f"blocks.{i}.", f"model.layers.{i}."
        out[f"{theirs}input_layernorm.weight"] = w[f"{ours}attention_norm.weight"]
        out[f"{theirs}post_attention_layernorm.weight"] = w[f"{ours}feed_forward_norm.weight"]
        for ours_name, name in (("query", "q"), ("key", "k"), ("value", "v"), ("out", "o")):
            weight = w[f"{ours}attention.{ours_name}.weight"]
            weight = halves(weight, size) if name in "qk" and "rope_theta" in c else weight
            out[f"{theirs}self_attn.{name}_proj.weight"] = weight.T
            bias = w.get(f"{ours}attention.{ours_name}.bias")
            if bias is not None:
                out[f"{theirs}self_attn.{name}_proj.bias"] = bias


def llama(c, w):
    from transformers import LlamaConfig, LlamaForCausalLM

    out: dict = {}
    _llama_attention(c, w, out)
    for i in range(c["num_layers"]):
        for name in ("gate", "up", "down"):
            weight = w[f"blocks.{i}.feed_forward.{name}.weight"].T
            out[f"model.layers.{i}.mlp.{name}_proj.weight"] = weight
    return LlamaForCausalLM(LlamaConfig(**_llama_fields(c))), out


def glm(c, w):
    from transformers import GlmConfig, GlmForCausalLM

    out: dict = {}
    _llama_attention(c, w, out)
    for i in range(c["num_layers"]):
        ours = f"blocks.{i}.feed_forward."
        gate_up = np.concatenate([w[f"{ours}gate.weight"], w[f"{ours}up.weight"]], -1)
        out[f"model.layers.{i}.mlp.gate_up_proj.weight"] = gate_up.T
        out[f"model.layers.{i}.mlp.down_proj.weight"] = w[f"{ours}down.weight"].T
    fields = _llama_fields(c) | dict(attention_bias=True, partial_rotary_factor=0.5)
    return GlmForCausalLM(GlmConfig(**fields)), out


def moe(c, w):
    from transformers import MixtralConfig, MixtralForCausalLM

    c, out = c | {"rope_theta": 10000.0}, {}
    _llama_attention(c, w, out)
    for i in range(c["num_layers"]):
        ours, theirs = f"blocks.{i}.feed_forward.", f"model.layers.{i}.block_sparse_moe."
        out[f"{theirs}gate.weight"] = w[f"{ours}router.linear.weight"].T
        for e in range(c["num_experts"]):
            for name, number in (("gate", 1), ("down", 2), ("up", 3)):
                weight = w[f"{ours}experts.{e}.{name}.weight"].T
                out[f"{theirs}experts.{e}.w{number}.weight"] = weight
    fields = dict(num_local_experts=c["num_experts"], num_experts_per_tok=c["experts_per_token"])
    return MixtralForCausalLM(MixtralConfig(**_llama_fields(c), **fields)), out


def bloom(c, w):
    from transformers import BloomConfig, BloomForCausalLM

    D, H = c["hidden_size"], c["num_heads"]
    model = BloomForCausalLM(
        BloomConfig(vocab_size=c["vocab_size"], hidden_size=D, n_layer=c["num_layers"], n_head=H)
    )
    out = {"word_embeddings.weight": w["embedding.weight"]}
    for part in ("weight", "bias"):
        out[f"word_embeddings_layernorm.{part}"] = w[f"embedding_norm.{part}"]
        out[f"ln_f.{part}"] = w[f"norm.{part}"]
        for i in range(c["num_layers"]):
            ours, theirs = f"blocks.{i}.", f"h.{i}."
            out[f"{theirs}input_layernorm.{part}"] = w[f"{ours}attention_norm.{part}"]
            out[f"{theirs}post_attention_layernorm.{part}"] = w[f"{ours}feed_forward_norm.{part}"]
            qkv = [w[f"{ours}attention.{name}.{part}"].T for name in ("query", "key", "value")]
            rows = np.stack([x.reshape(H, D // H, -1) for x in qkv], 1).reshape(3 * D, -1)
            rows = rows[:, 0] if part == "bias" else rows
            out[f"{theirs}self_attention.query_key_value.{part}"] = rows
            out[f"{theirs}self_attention.dense.{part}"] = w[f"{ours}attention.out.{part}"].T
            out[f"{theirs}mlp.dense_h_to_4h.{part}"] = w[f"{ours}feed_forward.up.{part}"].T
            out[f"{theirs}mlp.dense_4h_to_h.{part}"] = w[f"{ours}feed_forward.down.{part}"].T
    return model, {f"transformer.{key}": value for key, value in out.items()}


def rwkv4(c, w):
    from transformers import RwkvConfig, RwkvForCausalLM

    model = RwkvForCausalLM(
        RwkvConfig(
            vocab_size=c["vocab_size"],
            hidden_size=c["hidden_size"],
            num_hidden_layers=c["num_layers"],
            intermediate_size=c["intermediate_size"],
            rescale_every=0,
        )
    )
    out = {"rwkv.embeddings.weight": w["embedding.weight"], "head.weight": w["head.weight"].T}
    for part in ("weight", "bias"):
        out[f"rwkv.ln_out.{part}"] = w[f"norm.{part}"]
        out[f"rwkv.blocks.0.pre_ln.{part}"] = w[f"embedding_norm.{part}"]
    for i in range(c["num_layers"]):
        ours, theirs = f"blocks.{i}.", f"rwkv.blocks.{i}."
        for part in ("weight", "bias"):
            out[f"{theirs}ln1.{part}"] = w[f"{ours}attention_norm.{part}"]
            out[f"{theirs}ln2.{part}"] = w[f"{ours}feed_forward_norm.{part}"]
        out[f"{theirs}attention.time_decay"] = w[f"{ours}attention.log_decay"]
        out[f"{theirs}attention.time_first"] = w[f"{ours}attention.bonus"]
        for part in ("attention", "feed_forward"):
            for name in ("key", "value", "receptance"):
                out[f"{theirs}{part}.{name}.weight"] = w[f"{ours}{part}.{name}.weight"].T
                mix = w.get(f"{ours}{part}.mix_{name}")
                if mix is not None:
                    out[f"{theirs}{part}.time_mix_{name}"] = mix[None, None]
        out[f"{theirs}attention.output.weight"] = w[f"{ours}attention.out.weight"].T
    return model, out


def run(folder: Path) -> None:
    import torch

    EXPECTED.mkdir(exist_ok=True)
    for model_of in (gpt, llama, bloom, glm, rwkv4, moe):
        name = model_of.__name__
        fields, tokens = json.loads((folder / f"{name}.json").read_text())
        model, state = model_of(fields, dict(np.load(folder / f"{name}.npz")))
        state = {key: torch.tensor(np.ascontiguousarray(value)) for key, value in state.items()}
        found = model.load_state_dict(state, strict=False)
        missing = [key for key in found.missing_keys if key != "lm_head.weight"]
        if missing or found.unexpected_keys:
            raise ValueError(f"{name}: missing {missing}, unexpected {found.unexpected_keys}")
        model.tie_weights()
        with torch.no_grad():
            logits = model.eval()(torch.tensor(tokens)).logits.numpy()
        text = json.dumps([[[float(f"{x:.7g}") for x in t] for t in b] for b in logits])
        (EXPECTED / f"{name}.json").write_text(text.replace("], [", "],\n[") + "\n")
        print(name, logits.shape, f"largest {abs(logits).max():.2f}")


if __name__ == "__main__":
    {"export": export, "run": run}[sys.argv[1]](Path(sys.argv[2]))
