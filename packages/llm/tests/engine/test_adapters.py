"""LoRA adapters of the engine: against PEFT and merged weights, mixed in batches, with prefixes, coming and going."""

import asyncio
import dataclasses
from pathlib import Path

import numpy as np
import pytest
from oarlock.llm import models
from oarlock.llm.engine import LLM, EngineConfig, SamplingParams, open_service
from oarlock.llm.engine import Request as EngineRequest
from oarlock.llm.engine.sampling import log_softmax
from oarlock.llm.loading import Adapter, LowRank
from oarlock.llm.tokenizers import ByteTokenizer

GREEDY = SamplingParams(temperature=0.0, max_tokens=40)
PARTS = {
    "attention": ("query", "key", "value", "out"),
    "feed_forward": ("gate", "up", "down"),
}
PROMPTS = [
    list(b"the quick brown fox jumps over the lazy dog"),
    list(b"a"),
    list(b"again and again"),
]


def draw_adapter(model, seed, rank=4, only=None, size=0.5):
    """Changes of all products, or of those whose names end with one of ``only``."""
    rng = np.random.default_rng(seed)
    changes = {}
    for name, value in model.state_dict().items():
        part = name.removesuffix(".weight").split(".")[-1]
        if ".norm" in name or part not in PARTS["attention"] + PARTS["feed_forward"]:
            continue
        if not name.endswith(".weight") or (only is not None and part not in only):
            continue
        inputs, outputs = value.shape
        a = rng.standard_normal((inputs, rank)).astype(np.float32) * inputs**-0.5
        b = rng.standard_normal((rank, outputs)).astype(np.float32) * rank**-0.5
        changes[name] = LowRank(a=a, b=b, scale=size)
    return Adapter(source=Path(f"seed {seed}"), changes=changes)


def merged(model, adapter):
    """The model with the adapter in its weights."""
    copy = models.create(models.name_of(model), model.config)
    for name, value in model.state_dict().items():
        change = adapter.changes.get(name)
        array = value.numpy() + (0 if change is None else change.delta())
        copy.state_dict()[name].set_value(array)
    return copy.eval()


@pytest.fixture(scope="module")
def byte_model():
    config = models.llama.LlamaConfig(
        vocab_size=256, hidden_size=48, num_layers=2, num_heads=6, num_kv_heads=2, max_length=160
    )
    model = models.create("llama", config, seed=3)
    for name, parameter in model.state_dict().items():  # large enough to write something
        if len(parameter.shape) == 2:
            parameter.set_value(parameter * (8.0 if "head" in name or "embedding" in name else 3.0))
    return model.eval()


@pytest.mark.parametrize("name", ["llama", "gpt2", "bloom", "glm", "qwen2", "mixtral"])
def test_scores_are_those_of_peft(fixtures, name):
    """Folders that PEFT wrote, with the logits that it computed; beside texts of the model alone."""
    llm = LLM(fixtures / name, adapters={"tuned": fixtures / f"{name}-lora"})
    tokens = np.array([3, 77, 270, 12, 0, 131, 200, 5, 9, 64]) % llm.engine.model.vocab
    params = SamplingParams(max_tokens=0, prompt_logprobs=0)
    results = llm.generate([tokens] * 3, params, adapter=["tuned", None, "tuned"])
    for result, file in zip(results, (f"{name}-lora", name, f"{name}-lora")):
        wanted = log_softmax(np.load(fixtures / f"{file}.npy")[0])
        wanted = [row[token] for row, token in zip(wanted[:-1], tokens[len(tokens) - len(wanted) + 1 :])]  # fmt: skip
        found = [one.logprob for one in result.prompt_logprobs[-len(wanted) :]]
        np.testing.assert_allclose(found, wanted, atol=2e-4)
    assert results[0].prompt_logprobs == results[2].prompt_logprobs != results[1].prompt_logprobs


@pytest.mark.parametrize("only", [None, ("query", "value"), ("gate", "out")], ids=str)
@pytest.mark.parametrize("family", ["bloom", "glm", "gpt", "llama", "moe"])
def test_texts_are_those_of_merged_weights(family, only, small_model, tokens):
    model = small_model(family).eval()
    if family in ("gpt", "bloom") and only == ("gate", "out"):
        only = ("up", "out")
    adapter = draw_adapter(model, 1, only=only)
    llm, wanted = LLM(model, adapters={"tuned": adapter}), LLM(merged(model, adapter))
    text = tokens.numpy()[0].tolist()
    scores = [[one.logprob for one in row] for row in (llm.score([text], adapter="tuned")[0], wanted.score([text])[0])]  # fmt: skip
    np.testing.assert_allclose(*scores, rtol=1e-4, atol=1e-4)
    assert llm.score([text])[0] != llm.score([text], adapter="tuned")[0]
    greedy = SamplingParams(temperature=0.0, max_tokens=9)
    found = llm.generate([[1, 2, 3], [7]], greedy, adapter="tuned")
    for one, other in zip(found, wanted.generate([[1, 2, 3], [7]], greedy)):
        assert one.completions == other.completions
    np.testing.assert_allclose(
        llm.embed([text], adapter="tuned"), wanted.embed([text]), rtol=1e-3, atol=1e-4
    )


def test_adapters_beside_rounded_weights_are_near(byte_model):
    adapter = draw_adapter(byte_model, 1)
    exact = [one.logprob for one in LLM(merged(byte_model, adapter)).score([PROMPTS[0]])[0]]
    for weights, allowed in (("bf16", 0.05), ("int8", 0.1), ("int4", 1.5)):
        llm = LLM(byte_model, weights=weights, adapters={"tuned": adapter})
        found = [one.logprob for one in llm.score([PROMPTS[0]], adapter="tuned")[0]]
        assert 0 < np.abs(np.array(found) - exact).mean() < allowed, weights


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"most_rows": 5},
        {"cache_tokens": 160},  # texts must make room for each other
        {"share_prefixes": False},
        {"guesses": 4},
    ],
    ids=str,
)
def test_texts_of_adapters_do_not_depend_on_how_busy_the_engine_is(byte_model, options):
    adapters = {"first": draw_adapter(byte_model, 1), "second": draw_adapter(byte_model, 2, 7, ("query", "down"))}  # fmt: skip
    params = [
        SamplingParams(temperature=0.0, max_tokens=60),
        SamplingParams(temperature=1.5, seed=5, max_tokens=50),
        SamplingParams(temperature=0.7, seed=6, max_tokens=40, n=2),
    ]
    asked = [(p, q, name) for p, q in zip(PROMPTS, params) for name in (None, "first", "second")]
    alone = []
    for prompt, one, name in asked:
        llm = LLM(byte_model, tokenizer=ByteTokenizer(), adapters=adapters)
        alone += llm.generate([prompt], one, adapter=name)
    llm = LLM(
        byte_model, tokenizer=ByteTokenizer(), adapters=adapters, config=EngineConfig(**options)
    )
    together = llm.generate(*map(list, zip(*[one[:2] for one in asked])), adapter=[one[2] for one in asked])  # fmt: skip
    for wanted, found in zip(alone, together):
        assert found.completions == wanted.completions
    assert len({one.completions for one in together}) == len(asked)
    stats = llm.engine.stats()
    assert stats["cache_pages_used"] == stats["requests_running"] == 0
    assert not options.get("cache_tokens") or stats["preemptions"] > 0
    assert not options.get("guesses") or stats["tokens_guessed"] > 0


def test_beginnings_are_shared_within_an_adapter_only(byte_model):
    llm = LLM(byte_model, adapters={name: draw_adapter(byte_model, 1) for name in "ab"})
    found = {}
    for name in (None, "a", "b"):
        (first,) = llm.generate([PROMPTS[0]], GREEDY, adapter=name)
        (again,) = llm.generate([PROMPTS[0]], GREEDY, adapter=name)
        assert (first.usage.cached_tokens, again.usage.cached_tokens) == (0, 32)
        assert first.completions == again.completions
        found[name] = first.completions
    assert found["a"] == found["b"] != found[None]  # two names of equal numbers


def test_adapters_come_and_go(byte_model):
    one, other = draw_adapter(byte_model, 1), draw_adapter(byte_model, 2)
    llm = LLM(byte_model)
    assert llm.adapters == ()
    (plain,) = llm.generate([PROMPTS[0]], GREEDY)
    found = []
    for adapter in (one, other):
        llm.load_adapter("tuned", adapter)
        assert llm.adapters == ("tuned",)
        (result,) = llm.generate([PROMPTS[0]], GREEDY, adapter="tuned")
        assert result.usage.cached_tokens == 0  # the name is the same, the numbers are not
        found.append(result.completions)
        free = len(llm.engine.pages._free)
        llm.unload_adapter("tuned")
        assert len(llm.engine.pages._free) > free
        with pytest.raises(ValueError, match="adapter must be None, for none is loaded"):
            llm.generate([PROMPTS[0]], GREEDY, adapter="tuned")
    assert found[0] != found[1] and plain.completions not in found
    assert llm.generate([PROMPTS[0]], GREEDY)[0].completions == plain.completions


def test_an_adapter_in_use_stays(byte_model):
    llm = LLM(byte_model, tokenizer=ByteTokenizer(), adapters={"a": draw_adapter(byte_model, 1)})
    stream = llm.stream(PROMPTS[0], GREEDY, adapter="a")
    next(stream)
    with pytest.raises(ValueError, match="adapter 'a' is in use by 1 requests"):
        llm.unload_adapter("a")
    rest = list(stream)
    assert rest[-1].finish_reason == "length"
    llm.unload_adapter("a")


def test_adapters_that_do_not_fit_are_refused(byte_model, small_model):
    llm = LLM(byte_model, adapters={"a": draw_adapter(byte_model, 1)})
    good = draw_adapter(byte_model, 1).changes["blocks.0.attention.key.weight"]
    wide = dataclasses.replace(good, b=np.zeros((4, 17), np.float32))
    endless = dataclasses.replace(good, scale=float("inf"))
    wrong = {
        "blocks.0.attention.key.weight": wide,
        "blocks.1.attention.key.weight": endless,
        "blocks.2.attention.key.weight": good,
        "blocks.0.feed_forward.experts.0.up.weight": good,
        "head.weight": good,
    }
    with pytest.raises(ValueError) as error:
        llm.load_adapter("b", Adapter(source=Path("wrong"), changes=wrong))
    for part in (
        "wrong cannot be run",
        "blocks.0.attention.key.weight must have a [48, r] and b [r, 16], got (48, 4) and (4, 17)",
        "blocks.1.attention.key.weight must have finite numbers",
        "blocks.2.attention.key.weight is none of the products",
        "experts.0.up.weight is none of the products",
        "head.weight is none of the products",
    ):
        assert part in str(error.value)
    for name, adapter, message in (
        ("a", draw_adapter(byte_model, 1), "name must be new, but 'a' is loaded"),
        ("", draw_adapter(byte_model, 1), "name must be a text that is not empty"),
        ("b", "some/folder", "must be an Adapter where the model was not read from files"),
    ):
        with pytest.raises(ValueError, match=message):
            llm.load_adapter(name, adapter)
    with pytest.raises(ValueError, match="adapter must be one of a, got 'b'"):
        llm.generate([[1]], adapter="b")
    with pytest.raises(ValueError, match="adapter must be one or 1, got 2"):
        llm.generate([[1]], adapter=["a", None])
    with pytest.raises(ValueError, match="adapter must be one of a, got 'b'"):
        llm.unload_adapter("b")
    assert llm.adapters == ("a",) and not llm.engine.has_work
    experts = small_model("moe")
    router = dataclasses.replace(good, a=np.zeros((24, 4), "f4"), b=np.zeros((4, 4), "f4"))
    changes = {"blocks.0.feed_forward.router.linear.weight": router}
    with pytest.raises(ValueError, match="router.linear.weight is none of the products"):
        LLM(experts, adapters={"a": Adapter(source=Path("router"), changes=changes)})


def test_adapters_need_the_names_of_a_hugging_face_folder(fixtures):
    llm = LLM(fixtures / "llama-f16.gguf")
    with pytest.raises(ValueError, match="checkpoint must be a Hugging Face folder"):
        llm.load_adapter("a", fixtures / "llama-lora")


def test_a_service_with_adapters(byte_model):
    adapter = draw_adapter(byte_model, 1)
    options = {"tokenizer": ByteTokenizer(), "name": "base"}
    with pytest.raises(ValueError, match="adapters must not be named as the model is"):
        open_service(byte_model, adapters={"base": adapter}, **options)
    wanted = LLM(byte_model, adapters={"a": adapter}).generate([PROMPTS[0]], GREEDY, adapter="a")[0]
    service = open_service(byte_model, adapters={"a": adapter}, **options)
    try:
        with pytest.raises(ValueError, match="name must not be the model's"):
            service.load_adapter("base", adapter)
        service.load_adapter("b", draw_adapter(byte_model, 2))
        assert service.about.adapters == ("a", "b")

        async def run():
            request = EngineRequest(id="1", prompt=tuple(PROMPTS[0]), params=GREEDY, adapter="a")
            stream = service.submit(request)
            deltas = [await stream.__anext__()]
            with pytest.raises(ValueError, match="adapter 'a' is in use"):
                await asyncio.to_thread(service.unload_adapter, "a")
            deltas += [delta async for delta in stream]
            await asyncio.to_thread(service.unload_adapter, "a")
            with pytest.raises(ValueError, match="adapter must be one of b"):
                service.submit(dataclasses.replace(request, id="2"))
            return deltas

        tokens = sum((one.tokens for one in asyncio.run(run())), ())
        assert tokens == wanted.completions[0].tokens and service.about.adapters == ("b",)
    finally:
        service.close()
    with pytest.raises(RuntimeError, match="shutting down"):
        service.load_adapter("c", adapter)
