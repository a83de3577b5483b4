"""PaddleNLP's own `generate`, served to an experiment.

Runs in the peer's own environment, which has Paddle, PaddleNLP and NumPy; of ours there is `accelerate()`, which
gives that Paddle the thread count and the memory settings that ours has.
"""

import time

import paddle
import paddlenlp
from oarlock.native.paddle import accelerate
from paddlenlp.transformers import GPTConfig, GPTForCausalLM, LlamaConfig, LlamaForCausalLM

_state: dict = {}


class _Clock:
    """Notes when the scores of each new token are known; in the place of a method of the model."""

    def __init__(self):
        self.times = []

    def __call__(self, logits):
        logits.numpy()  # they are computed
        self.times.append(time.perf_counter())
        return logits


def load(*, family, shape, threads, seed):
    """A model of random weights in float32.

    Args:
        family: "llama" or "gpt".
        shape: sizes by our names.
    """
    report = accelerate(threads=threads)
    paddle.seed(seed)
    sizes = {
        "vocab_size": shape["vocab_size"],
        "hidden_size": shape["hidden_size"],
        "num_hidden_layers": shape["num_layers"],
        "num_attention_heads": shape["num_heads"],
        "intermediate_size": shape["intermediate_size"],
        "max_position_embeddings": shape["max_length"],
        "bos_token_id": 1,
        "eos_token_id": None,
        "pad_token_id": 0,
    }
    if family == "llama":
        config = LlamaConfig(num_key_value_heads=shape["num_kv_heads"], **sizes)
        model = LlamaForCausalLM(config)
    else:
        config = GPTConfig(
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, type_vocab_size=1, **sizes
        )
        model = GPTForCausalLM(config)
    model.eval()
    _state["model"] = model
    versions = f"PaddleNLP {paddlenlp.__version__}, Paddle {paddle.__version__}"
    return {"library": f"{versions} with accelerate()", "report": str(report)}


def prepare(*, texts, positions):
    """Nothing to be done."""


@paddle.no_grad()
def generate(*, prompts, new):
    """Continue all prompts, of one length, by the most probable tokens; wall-clock seconds.

    Returns:
        first_s: until every text has its first token; steps_s: of each step from then on; tokens.
    """
    model, clock, given = _state["model"], _Clock(), paddle.to_tensor(prompts)
    model.adjust_logits_during_generation = clock
    start = time.perf_counter()
    found, _ = model.generate(
        given,
        attention_mask=paddle.ones_like(given),
        decode_strategy="greedy_search",
        max_new_tokens=new,
        use_cache=True,
    )
    tokens = found.numpy().tolist()
    end = time.perf_counter()
    return {
        "first_s": clock.times[0] - start,
        "steps_s": [b - a for a, b in zip(clock.times, clock.times[1:])],
        "total_s": end - start,
        "tokens": tokens,
    }
