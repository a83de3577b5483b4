"""The models that are ranked, each as a backend."""

from collections.abc import Callable, Mapping

import numpy as np

from oarlock.accept import data, prepare
from oarlock.accept.evaluation import hugging_face
from oarlock.llm import weights
from oarlock.llm.engine import LLM, EngineConfig
from oarlock.llm.eval import Backend, EngineBackend, LanguageModelBackend
from oarlock.llm.models import LanguageModel
from oarlock.llm.models.llama import Llama, LlamaConfig
from oarlock.llm.tokenizers import BPETokenizer, ByteTokenizer, Tokenizer

NEWLINE = 10  #: a byte; the token before a text for models that were trained without one
TRAINED = 128  #: tokens of the sequences that `prepare` trains with
ROWS = 128  #: texts that RWKV takes at a time: its loop over time is Python's


def of_tier(tier: str) -> Mapping[str, Callable[[], Backend]]:
    """Models by name; the quick tier has no prepared ones."""
    found: dict[str, Callable[[], Backend]] = {
        "stories260K": stories,
        "RWKV-4 660K": rwkv,
        "random LLaMA": random,
    }
    if tier == "quick":
        return found
    trained: dict[str, Callable[[], Backend]] = {
        "LLaMA, Shakespeare": lambda: prepared("llama-shakespeare-bytes"),
        "GPT, Shakespeare": lambda: prepared("gpt-shakespeare-bytes"),
        "LLaMA, Chinese poems": lambda: prepared("llama-poems-bpe"),
    }
    return trained | found


def stories() -> Backend:
    """Karpathy's LLaMA of 260 thousand weights, trained on stories for children."""
    model, tokenizer = hugging_face.stories()
    return _engine(model, tokenizer, "stories260K", start=1, length=model.config.max_length)


def rwkv() -> Backend:
    """rwkv.cpp's RWKV-4 of 660 thousand weights over bytes."""
    model = weights.load_rwkv_cpp(data.path("weights/tiny_rwkv", "tiny-rwkv-4v0-660K-FP32.bin"))
    return LanguageModelBackend(
        model, ByteTokenizer(), name="RWKV-4 660K", start=NEWLINE, rows=ROWS
    )


def random(seed: int = 0) -> Backend:
    """A LLaMA as `prepare` begins with."""
    recipe = prepare.recipe("llama-shakespeare-bytes")
    model = Llama(LlamaConfig(vocab_size=256, **recipe.config), seed=seed)  # type: ignore[arg-type]
    return _engine(model, ByteTokenizer(), "random LLaMA", start=NEWLINE, length=TRAINED + 1)


def prepared(name: str, *, form: str = "fp32") -> Backend:
    """A model of `prepare`, over texts no longer than those that it was trained with."""
    model, _ = prepare.load(name)
    tokenizer: Tokenizer = ByteTokenizer()
    if prepare.recipe(name).tokenizer == "bpe":
        tokenizer = BPETokenizer.from_file(prepare.path(name) / "tokenizer.json")
    [start] = tokenizer.encode("\n")
    return _engine(model, tokenizer, f"{name} {form}", start=start, length=TRAINED + 1, form=form)


def disturbed(name: str, noise: float, *, seed: int) -> Backend:
    """A prepared LLaMA over bytes with normal noise in its matrices, in standard deviations of each."""
    model, _ = prepare.load(name)
    rng = np.random.default_rng(seed)
    for parameter in model.parameters():
        values = parameter.numpy()
        if values.ndim == 2:
            change = rng.standard_normal(values.shape, np.float32)
            parameter.set_value(values + np.float32(noise * values.std()) * change)
    about = f"{name}, noise {noise}"
    return _engine(model, ByteTokenizer(), about, start=NEWLINE, length=TRAINED + 1)


def _engine(
    model: LanguageModel,
    tokenizer: Tokenizer,
    name: str,
    *,
    start: int,
    length: int,
    form: str = "fp32",
) -> Backend:
    config = EngineConfig(threads=1)
    llm = LLM(model, tokenizer=tokenizer, weights=form, config=config)
    about = {"model": name, "weights": form}
    return EngineBackend(llm, tokenizer, description=about, max_length=length, start=start)
