"""transformers' own `generate` on PyTorch, served to an experiment.

Runs in the peer's own environment, which has PyTorch, transformers and NumPy and nothing of ours.
"""

import time

import torch
import transformers

_state: dict = {}


class _Clock(transformers.LogitsProcessor):
    """Notes when the scores of each new token are known."""

    def __init__(self):
        self.times = []

    def __call__(self, input_ids, scores):
        self.times.append(time.perf_counter())
        return scores


def load(*, family, shape, threads, seed):
    """A model of random weights in float32.

    Args:
        family: "llama" or "gpt".
        shape: sizes by our names.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    sizes = {
        "vocab_size": shape["vocab_size"],
        "bos_token_id": 1,
        "eos_token_id": None,
        "pad_token_id": 0,
    }
    if family == "llama":
        config = transformers.LlamaConfig(
            hidden_size=shape["hidden_size"],
            num_hidden_layers=shape["num_layers"],
            num_attention_heads=shape["num_heads"],
            num_key_value_heads=shape["num_kv_heads"],
            intermediate_size=shape["intermediate_size"],
            max_position_embeddings=shape["max_length"],
            **sizes,
        )
        model = transformers.LlamaForCausalLM(config)
    else:
        config = transformers.GPT2Config(
            n_embd=shape["hidden_size"],
            n_layer=shape["num_layers"],
            n_head=shape["num_heads"],
            n_inner=shape["intermediate_size"],
            n_positions=shape["max_length"],
            **sizes,
        )
        model = transformers.GPT2LMHeadModel(config)
    _state["model"] = model.eval()
    return {"library": f"transformers {transformers.__version__}, torch {torch.__version__}"}


def prepare(*, texts, positions):
    """Nothing to be done."""


@torch.inference_mode()
def generate(*, prompts, new):
    """Continue all prompts, of one length, by the most probable tokens; wall-clock seconds.

    Returns:
        first_s: until every text has its first token; steps_s: of each step from then on; tokens.
    """
    clock, given = _Clock(), torch.tensor(prompts)
    start = time.perf_counter()
    found = _state["model"].generate(
        given,
        attention_mask=torch.ones_like(given),
        do_sample=False,
        max_new_tokens=new,
        min_new_tokens=new,
        logits_processor=transformers.LogitsProcessorList([clock]),
    )
    end = time.perf_counter()
    return {
        "first_s": clock.times[0] - start,
        "steps_s": [b - a for a, b in zip(clock.times, clock.times[1:])],
        "total_s": end - start,
        "tokens": found[:, len(prompts[0]) :].tolist(),
    }
