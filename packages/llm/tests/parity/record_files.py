"""Write the model files of ``fixtures`` with the libraries whose formats they are, and their logits.

    python record_files.py folders              # transformers 4: Hugging Face folders
    python record_files.py adapters             # peft: LoRA folders for some of the models
    python record_files.py gguf LLAMA_CPP       # llama.cpp's source: its converter
    python record_files.py quantize             # llama-cpp-python: Q4_K_M of a made-up model
    python record_files.py rope                 # transformers 4: scaled rotary frequencies
    python record_files.py chat                 # transformers 4: rendered chat templates

Logits are those of transformers, of GGUF files after its own reading of them. Last recorded with
torch 2.13.0, transformers 4.57.6, peft 0.17.1, gguf 0.19.0 and llama-cpp-python 0.3.36.
"""

import contextlib
import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

FIXTURES = Path(__file__).parent.parent / "fixtures"
TOKENS = [[3, 77, 270, 12, 0, 131, 200, 5, 9, 64]]  # modulo the size of the vocabulary
LAST = 5  # positions whose logits are kept
TEXTS = [
    "The cat sat on the mat and the dog sat on the cat. " * 4,
    "秦川雄帝宅，函谷壯皇居。",
    "naïve café 1,234",
]
END, START, STOP = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHAT = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content"
    " + '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
    "{% endif %}"
)
LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BLOOM_PATTERN = r" ?[^(\s|[.,!?…。，、।۔،])]+"
SIZES = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=32)
LLAMA = SIZES | dict(intermediate_size=48, num_key_value_heads=2, bos_token_id=1, eos_token_id=2)
ONE_LAYER = LLAMA | dict(num_hidden_layers=1)


def byte_level(folder: Path, pattern: str | None) -> int:
    """A byte-level BPE tokenizer of 272 ids; returns their number."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = tokenizers.Tokenizer(models.BPE())
    if pattern is None:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        split = pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
        plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, plain])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=269, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_special_tokens([END, START, STOP])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=STOP,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT
    fast.save_pretrained(folder)
    return len(fast)


def sentence_piece(folder: Path) -> int:
    """A SentencePiece BPE model of LLaMA's kind, and its tokenizer.json; returns the number of ids."""
    import sentencepiece
    from transformers import LlamaTokenizer, LlamaTokenizerFast

    with tempfile.TemporaryDirectory() as made, contextlib.chdir(made):
        prefix = "tokenizer"  # the model keeps it
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(TEXTS),
            model_prefix=prefix,
            vocab_size=304,
            model_type="bpe",
            hard_vocab_limit=False,
            byte_fallback=True,
            character_coverage=0.99,
            normalization_rule_name="identity",
            num_threads=1,
            minloglevel=2,
            remove_extra_whitespaces=False,
            split_digits=True,
        )
        slow = LlamaTokenizer(f"{prefix}.model", legacy=True)
        slow.save_pretrained(folder)
        LlamaTokenizerFast.from_pretrained(folder, legacy=True).save_pretrained(folder)
        shutil.copy(f"{prefix}.model", folder / "tokenizer.model")
    return sentencepiece.SentencePieceProcessor(str(folder / "tokenizer.model")).GetPieceSize()


def draw(model) -> None:
    """Weights at which every part of a model matters, exact in bfloat16."""
    import torch

    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        wide = parameter.dim() > 1
        values = noise * (parameter.shape[-1] ** -0.5 if wide else 0.2) + (0 if wide else 0.5)
        parameter.data = values.to(torch.bfloat16).float()


def keep(model, name: str, *, stored: str = "bfloat16", **options) -> None:
    """Save the folder and its logits."""
    import torch

    draw(model)
    record(model, FIXTURES / f"{name}.npy")
    model.to(getattr(torch, stored)).save_pretrained(FIXTURES / name, **options)
    (FIXTURES / name / "README.md").unlink(missing_ok=True)


def record(model, path: Path) -> None:
    import torch

    with torch.no_grad():
        tokens = torch.tensor(TOKENS) % model.config.vocab_size
        logits = model.float().eval()(tokens).logits[:, -LAST:]
    np.save(path, logits.numpy().astype(np.float32))
    print(path.name, tuple(logits.shape), f"largest {logits.abs().max():.2f}")


def folders() -> None:
    import transformers as t

    t.logging.set_verbosity_error()
    for name in ("gpt2", "bloom", "llama", "qwen2", "mistral", "mixtral", "glm", "chatglm"):
        shutil.rmtree(FIXTURES / name, ignore_errors=True)
        (FIXTURES / name).mkdir(parents=True)
    V = byte_level(FIXTURES / "gpt2", None)
    gpt = t.GPT2Config(
        vocab_size=V,
        n_positions=32,
        n_ctx=32,
        n_embd=32,
        n_layer=1,
        n_head=4,
        bos_token_id=V - 3,
        eos_token_id=V - 3,
    )
    keep(t.GPT2LMHeadModel(gpt), "gpt2", stored="float16")
    V = byte_level(FIXTURES / "bloom", BLOOM_PATTERN)
    bloom = t.BloomConfig(
        vocab_size=V, hidden_size=32, n_layer=1, n_head=4, bos_token_id=1, eos_token_id=2
    )
    keep(t.BloomForCausalLM(bloom), "bloom", stored="float16", max_shard_size="20KB")
    V = sentence_piece(FIXTURES / "llama")
    scaling = dict(
        rope_type="llama3",
        factor=4.0,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=16,
    )
    keep(
        t.LlamaForCausalLM(
            t.LlamaConfig(vocab_size=V, rope_scaling=scaling, rope_theta=100.0, **LLAMA)
        ),
        "llama",
    )
    V = byte_level(FIXTURES / "qwen2", LLAMA3_PATTERN.replace("{1,3}", ""))
    ends = LLAMA | dict(bos_token_id=V - 3, eos_token_id=V - 1)
    qwen = t.Qwen2ForCausalLM(t.Qwen2Config(vocab_size=V, tie_word_embeddings=True, **ends))
    qwen.generation_config = t.GenerationConfig(
        do_sample=True,
        temperature=0.7,
        top_k=20,
        top_p=0.8,
        repetition_penalty=1.1,
        bos_token_id=V - 3,
        eos_token_id=[V - 1, V - 3],
    )
    keep(qwen, "qwen2")
    V = sentence_piece(FIXTURES / "mistral")
    (FIXTURES / "mistral" / "tokenizer.json").unlink()
    keep(
        t.MistralForCausalLM(
            t.MistralConfig(vocab_size=V, head_dim=12, sliding_window=6, **ONE_LAYER)
        ),
        "mistral",
    )
    mixtral = t.MixtralConfig(
        vocab_size=V, num_local_experts=3, num_experts_per_tok=2, sliding_window=None, **ONE_LAYER
    )
    keep(t.MixtralForCausalLM(mixtral), "mixtral")
    sizes = ONE_LAYER | dict(bos_token_id=None, eos_token_id=[95, 94], pad_token_id=None)
    glm = t.GlmForCausalLM(t.GlmConfig(vocab_size=96, head_dim=8, attention_bias=True, **sizes))
    keep(glm, "glm")
    chatglm(glm)


def chatglm(model) -> None:
    """The same weights as ChatGLM2 and ChatGLM3 name and join them (their code is in no library)."""
    import torch
    from safetensors.torch import save_file

    state = {name: value.to(torch.bfloat16) for name, value in model.state_dict().items()}
    out = {
        "transformer.embedding.word_embeddings.weight": state["model.embed_tokens.weight"],
        "transformer.encoder.final_layernorm.weight": state["model.norm.weight"],
        "transformer.output_layer.weight": state["lm_head.weight"],
        "transformer.rotary_pos_emb.inv_freq": torch.ones(2),
    }
    for i in range(model.config.num_hidden_layers):
        theirs, ours = f"model.layers.{i}.", f"transformer.encoder.layers.{i}."
        for part in ("weight", "bias"):
            out[f"{ours}self_attention.query_key_value.{part}"] = torch.cat(
                [state[f"{theirs}self_attn.{name}_proj.{part}"] for name in "qkv"]
            )
        for old, new in (
            ("input_layernorm", "input_layernorm"),
            ("post_attention_layernorm", "post_attention_layernorm"),
            ("self_attn.o_proj", "self_attention.dense"),
            ("mlp.gate_up_proj", "mlp.dense_h_to_4h"),
            ("mlp.down_proj", "mlp.dense_4h_to_h"),
        ):
            out[f"{ours}{new}.weight"] = state[f"{theirs}{old}.weight"]
    folder = FIXTURES / "chatglm"
    save_file(out, folder / "model.safetensors")
    config = dict(
        model_type="chatglm",
        architectures=["ChatGLMModel"],
        num_layers=1,
        hidden_size=32,
        kv_channels=8,
        num_attention_heads=4,
        multi_query_attention=True,
        multi_query_group_num=2,
        ffn_hidden_size=48,
        padded_vocab_size=96,
        seq_length=32,
        layernorm_epsilon=model.config.rms_norm_eps,
        rmsnorm=True,
        add_qkv_bias=True,
        add_bias_linear=False,
        original_rope=True,
        post_layer_norm=True,
        apply_residual_connection_post_layernorm=False,
        eos_token_id=2,
        tie_word_embeddings=False,
    )
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    shutil.copy(FIXTURES / "glm.npy", FIXTURES / "chatglm.npy")


#: What the adapter of each model changes.
ADAPTERS = {
    "llama": {"target_modules": ["q_proj", "v_proj", "down_proj"], "rank_pattern": {"down_proj": 2}},
    "gpt2": {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True},
    "bloom": {"target_modules": ["query_key_value", "dense_4h_to_h"]},
    "glm": {"target_modules": "all-linear"},
    "qwen2": {"target_modules": "all-linear", "use_rslora": True},
    "mixtral": {"target_modules": ["k_proj", "o_proj", "w1", "w2", "w3"]},
}  # fmt: skip


def adapters() -> None:
    import peft
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    for model, options in ADAPTERS.items():
        base = transformers.AutoModelForCausalLM.from_pretrained(
            FIXTURES / model, dtype=torch.float32
        )
        config = peft.LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM", **options)
        tuned = peft.get_peft_model(base, config)
        generator = torch.Generator().manual_seed(1)
        for parameter_name, parameter in tuned.named_parameters():
            if "lora_" in parameter_name:
                parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
        folder = FIXTURES / f"{model}-lora"
        shutil.rmtree(folder, ignore_errors=True)
        tuned.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)
        settings = json.loads((folder / "adapter_config.json").read_text())
        settings["base_model_name_or_path"] = model
        (folder / "adapter_config.json").write_text(
            json.dumps(settings, indent=2, sort_keys=True) + "\n"
        )
        record(tuned, FIXTURES / f"{model}-lora.npy")


def convert(llama_cpp: str, folder: Path, out: Path, kind: str, pre: str) -> None:
    """llama.cpp's own converter; it knows pre-tokenizers by the hash of published ones only."""
    sys.path[:0] = [llama_cpp, f"{llama_cpp}/gguf-py"]
    import convert_hf_to_gguf
    from conversion import base

    base.TextModel.get_vocab_base_pre = lambda self, tokenizer: pre
    sys.argv = ["convert", str(folder), "--outfile", str(out), "--outtype", kind]
    convert_hf_to_gguf.main()


def read_by_transformers(path: Path) -> None:
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name)
    record(model, path.with_suffix(".npy"))


def rounded(name: str) -> None:
    """Logits of a folder's model, its matrices rounded to Q8_0 by the package gguf."""
    import gguf
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(FIXTURES / name, dtype=torch.float32)
    if name == "mistral":
        # the converter leaves the window out
        config = transformers.MistralConfig.from_pretrained(FIXTURES / name, sliding_window=None)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            FIXTURES / name, config=config, dtype=torch.float32
        )
    for key, parameter in model.named_parameters():
        turned = ".c_" in key  # GPT-2 stores [in, out]
        rows = parameter.detach().numpy().T if turned else parameter.detach().numpy()
        if rows.ndim == 2 and rows.shape[1] % 32 == 0 and "wpe" not in key:
            rows = gguf.quantize(np.ascontiguousarray(rows), gguf.GGMLQuantizationType.Q8_0)
            rows = gguf.dequantize(rows, gguf.GGMLQuantizationType.Q8_0)
            parameter.data = torch.tensor(rows.T if turned else rows)
    record(model, FIXTURES / f"{name}-q8_0.npy")


def gguf(llama_cpp: str) -> None:
    for name, kind, pre in (
        ("llama", "f16", ""),
        ("qwen2", "bf16", "qwen2"),
        ("gpt2", "q8_0", "gpt-2"),
        ("bloom", "q8_0", "bloom"),
        ("mistral", "q8_0", ""),
    ):
        convert(llama_cpp, FIXTURES / name, FIXTURES / f"{name}-{kind}.gguf", kind, pre)
    with tempfile.TemporaryDirectory() as made:  # the converter wants a tokenizer
        folder = Path(made)
        for source in ("llama", "mixtral"):
            shutil.copytree(FIXTURES / source, folder, dirs_exist_ok=True)
        convert(llama_cpp, folder, FIXTURES / "mixtral-f16.gguf", "f16", "")
    for name in ("gpt2", "bloom", "mistral"):
        rounded(name)


def quantize(llama_cpp: str) -> None:
    """Rows of 256, as the K formats need, and some of 64, for which llama.cpp takes another format."""
    import ctypes

    import transformers

    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        V = sentence_piece(folder)
        sizes = LLAMA | dict(
            hidden_size=256,
            num_hidden_layers=1,
            intermediate_size=256,
            head_dim=16,
            num_attention_heads=2,
        )
        sizes |= dict(num_key_value_heads=1, tie_word_embeddings=True)
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=V, **sizes))
        draw(model)
        model.save_pretrained(folder)
        convert(llama_cpp, folder, folder / "f32.gguf", "f32", "")
        import llama_cpp as binding

        params = binding.llama_model_quantize_default_params()
        params.ftype = binding.LLAMA_FTYPE_MOSTLY_Q4_K_M
        out = FIXTURES / "llama-q4_k_m.gguf"
        code = binding.llama_model_quantize(
            str(folder / "f32.gguf").encode(), str(out).encode(), ctypes.byref(params)
        )
        if code:
            raise ValueError(f"llama.cpp could not quantise: {code}.")
    read_by_transformers(out)


def rope() -> None:
    """Frequencies and factor of each scaling that transformers knows."""
    import torch
    import transformers
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    cases = []
    for scaling, length in (
        (dict(rope_type="linear", factor=4.0), 64),
        (dict(rope_type="dynamic", factor=4.0), 32),
        (dict(rope_type="dynamic", factor=4.0), 100),
        (dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=64), 64),
        (
            dict(
                rope_type="yarn",
                factor=8.0,
                original_max_position_embeddings=4096,
                beta_fast=16.0,
                beta_slow=2.0,
                attention_factor=1.25,
            ),
            64,
        ),
        (
            dict(
                rope_type="yarn",
                factor=8.0,
                original_max_position_embeddings=4096,
                truncate=False,
                mscale=0.7,
                mscale_all_dim=1.0,
            ),
            64,
        ),
        (
            dict(
                rope_type="llama3",
                factor=8.0,
                low_freq_factor=1.0,
                high_freq_factor=4.0,
                original_max_position_embeddings=8192,
            ),
            64,
        ),
    ):
        config = transformers.LlamaConfig(
            hidden_size=128,
            num_attention_heads=4,
            max_position_embeddings=64,
            rope_theta=5000.0,
            rope_scaling=scaling,
        )
        found, factor = ROPE_INIT_FUNCTIONS[scaling["rope_type"]](
            config, torch.device("cpu"), length
        )
        cases.append([scaling, length, [float(f"{x:.7g}") for x in found], factor])
    (Path(__file__).parent / "expected" / "rope.json").write_text(
        json.dumps(cases, indent=1) + "\n"
    )


def chat() -> None:
    """Prompts that transformers renders of the templates in fixtures/chat; None where one refuses."""
    import datetime
    from unittest import mock

    from transformers.utils import chat_template_utils

    chats = json.loads((FIXTURES / "chat" / "chats.json").read_text(encoding="utf-8"))
    fixed = mock.Mock(now=lambda: datetime.datetime(*chats["now"]))
    rendered: dict = {}
    for path in sorted((FIXTURES / "chat").glob("*.jinja")):
        for name, options in chats["chats"].items():
            with mock.patch.object(chat_template_utils, "datetime", fixed):
                try:
                    options = dict(options)
                    found = chat_template_utils.render_jinja_template(
                        [options.pop("messages")],
                        chat_template=path.read_text(),
                        bos_token="<s>",
                        eos_token="</s>",
                        **options,
                    )[0][0]
                except Exception as error:
                    print(path.name, name, error)
                    found = None
            rendered.setdefault(path.stem, {})[name] = found
    text = json.dumps(rendered, indent=1, ensure_ascii=False)
    (Path(__file__).parent / "expected" / "chat.json").write_text(text + "\n")


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
