"""Drafts: texts stay as they are, good guesses are kept, memory comes back."""

import asyncio
import dataclasses

import numpy as np
import paddle
import pytest
from oarlock.llm import models
from oarlock.llm.engine import (
    LLM,
    Constraint,
    Engine,
    EngineConfig,
    Request,
    SamplingParams,
    open_service,
    packing,
)
from oarlock.llm.engine.opening import _check_same_tokens
from oarlock.llm.loading import Adapter, LowRank
from oarlock.llm.tokenizers import (
    BPETokenizer,
    ByteTokenizer,
    Llama2cTokenizer,
    SentencePieceTokenizer,
)
from oarlock.llm.writing.pieces import of_llama2c

PROMPTS = [b"the quick brown fox", b"a", b"jumps over the lazy dog, and then again over the dog"]
PROMPTS = [list(prompt) for prompt in PROMPTS]
JSON = Constraint("json_schema", '{"type": "object", "properties": {"a": {"type": "integer"}}}')
PARAMS = [
    SamplingParams(temperature=0.0, max_tokens=60),
    SamplingParams(temperature=1.2, seed=5, max_tokens=50, top_p=0.9),
    SamplingParams(temperature=0.7, seed=6, max_tokens=40, n=3, presence_penalty=0.5, logprobs=1),
    SamplingParams(temperature=1.0, seed=7, max_tokens=40, stop=("e", "o"), n=2),
    SamplingParams(temperature=1.0, seed=8, max_tokens=30, constraint=JSON),
    SamplingParams(temperature=1.0, seed=9, max_tokens=1),
    SamplingParams(temperature=1.0, seed=9, max_tokens=0, prompt_logprobs=0),
    SamplingParams(temperature=0.0),  # as long as the model can
]
ASKED = [PROMPTS[i % 3] for i in range(len(PARAMS))]


def made(seed, **sizes):
    sizes = {"hidden_size": 48, "num_layers": 2, "num_heads": 6, "num_kv_heads": 2} | sizes
    config = models.llama.LlamaConfig(**{"vocab_size": 256, "max_length": 160} | sizes)
    model = models.create("llama", config, seed=seed)
    for name, parameter in model.state_dict().items():  # large enough to write something
        if len(parameter.shape) == 2:
            parameter.set_value(parameter * (8.0 if "head" in name or "embedding" in name else 3.0))
    return model.eval()


@pytest.fixture(scope="module")
def model():
    return made(3)


@pytest.fixture(scope="module")
def drafts(model):
    """The model itself, one near it, and one that knows nothing of it, with fewer positions."""
    near = made(3)
    rng = np.random.default_rng(0)
    for parameter in near.parameters():
        noise = rng.standard_normal(parameter.shape).astype("float32")
        parameter.set_value(parameter * paddle.to_tensor(1 + 0.1 * noise))
    return {
        "itself": model,
        "near": near,
        "far": made(4, hidden_size=16, num_heads=2, max_length=100),
    }


def llm(model, draft=None, guesses=4, **options):
    config = EngineConfig(guesses=guesses if draft is not None else 0, **options)
    return LLM(model, tokenizer=ByteTokenizer(), draft=draft, config=config)


@pytest.fixture(scope="module")
def alone(model):
    """What each request gets by itself, without a draft."""
    return [llm(model).generate([prompt], one)[0] for prompt, one in zip(ASKED, PARAMS)]


@pytest.mark.parametrize(
    "draft,options",
    [
        ("itself", {}),
        ("near", {"guesses": 1, "most_rows": 9}),
        ("near", {"guesses": 6, "cache_tokens": 160}),  # texts must make room for each other
        ("near", {"share_prefixes": False, "most_texts": 3}),
        ("far", {"guesses": 6}),
        ("far", {"guesses": 3, "most_rows": 1}),
    ],
    ids=str,
)
def test_texts_are_those_without_a_draft(model, drafts, alone, draft, options):
    engine = llm(model, drafts[draft], **options)
    for wanted, found in zip(alone, engine.generate(ASKED, PARAMS)):
        assert found.completions == wanted.completions
        assert found.prompt_logprobs == wanted.prompt_logprobs
    stats = engine.engine.stats()
    assert stats["cache_pages_used"] == stats["draft_pages_used"] == 0
    assert stats["draft_steps"] > 0
    if "cache_tokens" in options:
        assert stats["preemptions"] > 0
    if options.get("most_rows") != 1:
        assert stats["tokens_guessed"] > 0


@pytest.mark.parametrize("params", PARAMS[:4] + [PARAMS[7]], ids=range(5))
def test_of_the_model_itself_everything_is_kept(model, params):
    plain, guessing = llm(model), llm(model, model)
    for one in (plain, guessing):
        one.generate(PROMPTS, params)
    stats = guessing.engine.stats()
    assert stats["guesses_right"] == stats["tokens_guessed"] > 0
    assert stats["steps"] < plain.engine.stats()["steps"] / 3


def test_a_draft_minds_constraints(model):
    """Without them it would guess what cannot follow."""
    texts = llm(model, model)
    params = SamplingParams(temperature=2.0, seed=1, max_tokens=30, constraint=JSON)
    texts.generate(PROMPTS, params)
    stats = texts.engine.stats()
    assert stats["guesses_right"] == stats["tokens_guessed"] > 0


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.5])
def test_near_models_agree_more_than_far_ones(model, drafts, temperature):
    kept = {}
    for name, draft in drafts.items():
        engine = llm(model, draft)
        engine.generate(
            PROMPTS, SamplingParams(temperature=temperature, seed=1, max_tokens=60, n=4)
        )
        stats = engine.engine.stats()
        kept[name] = stats["guesses_right"] / stats["tokens_guessed"]
    assert kept["itself"] == 1 > kept["near"] > kept["far"] + 0.2 and kept["near"] > 0.5, kept


def test_rounded_weights_of_the_model_are_a_draft(model):
    params = SamplingParams(temperature=1.0, seed=2, max_tokens=60)
    config = EngineConfig(guesses=4)
    guessing = LLM(model, draft=model, draft_weights="int8", config=config)
    found = guessing.generate(PROMPTS, params)
    for one, other in zip(found, LLM(model).generate(PROMPTS, params)):
        assert one.completions[0].tokens == other.completions[0].tokens
    stats = guessing.engine.stats()
    assert 0.9 < stats["guesses_right"] / stats["tokens_guessed"] < 1


def test_draws_with_a_draft_follow_the_model(small_model):
    """Pairs of first and second tokens of many seeds against the model's probabilities."""
    model, draft = small_model("llama").eval(), small_model("gpt").eval()
    count, vocab = 1200, model.config.vocab_size
    guessing = LLM(model, draft=draft, config=EngineConfig(guesses=2))
    params = [SamplingParams(temperature=0.8, max_tokens=3, seed=seed) for seed in range(count)]
    found = guessing.generate([[1, 2, 3]] * count, params)
    counts = np.zeros((vocab, vocab))
    for one in found:
        counts[one.completions[0].tokens[:2]] += 1
    prompts = paddle.to_tensor([[1, 2, 3, token] for token in range(vocab)])
    with paddle.no_grad():
        logits = model(prompts).numpy().astype(np.float64) / 0.8
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    expected = count * shares[0, 2][:, None] * shares[:, 3]
    enough = expected >= 5
    chi = ((counts - expected) ** 2 / expected)[enough].sum()
    assert enough.sum() > 30 and chi < enough.sum() + 4 * (2 * enough.sum()) ** 0.5
    stats = guessing.engine.stats()
    assert 0 < stats["guesses_right"] < stats["tokens_guessed"]


def test_an_adapter_s_texts_are_guessed_by_the_draft_alone(model):
    rng = np.random.default_rng(1)
    name = "blocks.0.attention.out.weight"
    change = LowRank(a=rng.standard_normal((48, 4)).astype("f4"), b=rng.standard_normal((4, 48)).astype("f4"), scale=0.1)  # fmt: skip
    adapters = {"tuned": Adapter(source="made here", changes={name: change})}
    params = SamplingParams(temperature=0.7, seed=3, max_tokens=40)
    plain = LLM(model, adapters=adapters).generate(PROMPTS, params, adapter="tuned")
    config = EngineConfig(guesses=3)
    guessing = LLM(model, adapters=adapters, draft=model, config=config)
    for one, other in zip(plain, guessing.generate(PROMPTS, params, adapter="tuned")):
        assert one.completions == other.completions
    stats = guessing.engine.stats()
    assert 0 < stats["guesses_right"] < stats["tokens_guessed"]


def test_aborted_texts_give_the_draft_s_pages_back(model):
    packed = packing.pack("llama", model.config, {name: one.numpy() for name, one in model.state_dict().items()})  # fmt: skip
    engine = Engine(packed, EngineConfig(guesses=4), draft=packed)
    for name in "ab":
        params = SamplingParams(temperature=1.0, seed=1, max_tokens=50, n=2)
        engine.add(Request(id=name, prompt=tuple(PROMPTS[2]), params=params))
    for _ in range(3):
        engine.step()
    held = engine.stats()["draft_pages_used"]
    engine.abort("a")
    assert 0 < engine.stats()["draft_pages_used"] < held
    engine.abort("b")
    engine.step()
    assert engine.stats()["draft_pages_used"] == 0 and not engine.has_work


def test_a_service_with_a_draft(model, drafts):
    wanted = llm(model).generate([PROMPTS[0]], PARAMS[1])[0].completions[0].tokens
    config = EngineConfig(guesses=3)
    service = open_service(
        model, tokenizer=ByteTokenizer(), draft=drafts["near"], draft_weights="int8", config=config
    )

    async def run():
        request = Request(id="1", prompt=tuple(PROMPTS[0]), params=PARAMS[1])
        return [delta async for delta in service.submit(request)]

    try:
        deltas = asyncio.run(run())
        assert sum((one.tokens for one in deltas), ()) == wanted and len(deltas) < len(wanted)
        assert service.stats()["draft_steps"] > 0
    finally:
        service.close()


def test_the_leader_of_several_ranks_has_the_draft(model):
    params = SamplingParams(temperature=0.0, max_tokens=40)
    wanted = llm(model).generate(PROMPTS, params)
    config = EngineConfig(guesses=4, threads=1)
    guessing = LLM(model, tokenizer=ByteTokenizer(), draft=model, config=config, ranks=2)
    try:
        for one, other in zip(guessing.generate(PROMPTS, params), wanted):
            assert one.completions == other.completions
        stats = guessing.engine.stats()
        # Sums of several ranks are rounded otherwise than those of one process.
        assert stats["guesses_right"] > 0.9 * stats["tokens_guessed"] > 0
    finally:
        guessing.close()


@pytest.mark.parametrize("sizes", [(256, 264), (264, 256)], ids=str)
def test_logits_that_stand_for_no_token_may_differ(sizes):
    """Models of a series have the tokenizer's tokens and some numbers more, not as many each."""
    model, draft = (made(3, vocab_size=size) for size in sizes)
    prompts = [*PROMPTS, [1, sizes[0] - 1, 2]]  # the last token may be none of the draft's
    params = SamplingParams(temperature=1.0, seed=1, max_tokens=30, frequency_penalty=0.2)
    guessing = llm(model, draft)
    for one, other in zip(guessing.generate(prompts, params), llm(model).generate(prompts, params)):
        assert one.completions == other.completions
    assert guessing.engine.stats()["guesses_right"] > 0
    with pytest.raises(ValueError, match="draft must have the model's vocabulary"):
        LLM(model, draft=draft, config=EngineConfig(guesses=2))  # whose tokens are not known


def test_drafts_that_do_not_fit_are_refused(model, fixtures, tmp_path):
    config = EngineConfig(guesses=2)
    with pytest.raises(
        ValueError, match="draft must have the model's vocabulary of 256 tokens, got 29"
    ):
        LLM(model, draft=made(1, vocab_size=29), config=config)
    with pytest.raises(ValueError, match="guesses must be 1 or more with a draft"):
        LLM(model, draft=model, config=EngineConfig(guesses=0))
    assert LLM(model, draft=model).generate([[1, 2]], SamplingParams(max_tokens=2))  # 4 a step
    with pytest.raises(ValueError, match="draft_weights must be None without a draft"):
        LLM(model, draft_weights="int4", config=config)
    with pytest.raises(ValueError, match="weights must be one of"):
        LLM(model, draft=model, draft_weights="int3", config=config)
    other = BPETokenizer.train(["other words " * 20], vocab_size=304, exact=False)
    with pytest.raises(ValueError, match="draft must have the model's tokens"):
        LLM(fixtures / "llama", tokenizer=other, draft=fixtures / "llama", config=config)
    own = LLM(fixtures / "llama", draft=fixtures / "llama", config=config)
    same = dataclasses.replace(PARAMS[0], max_tokens=10)
    assert own.generate("the cat", same)[0].completions == LLM(fixtures / "llama").generate("the cat", same)[0].completions  # fmt: skip


def test_a_tokenizer_in_another_format_is_the_same():
    """llama2.c counts <unk> as special, SentencePiece does not."""
    pieces = [b"<unk>", b"<s>", b"</s>", *(b"<0x%02X>" % byte for byte in range(256)), b"a", b"aa"]
    ours = Llama2cTokenizer(pieces, [0.0] * len(pieces))
    drafts = SentencePieceTokenizer(of_llama2c(ours).model())
    assert len(ours.special_tokens) == len(drafts.special_tokens) + 1 == 3
    _check_same_tokens(ours, drafts)
    _check_same_tokens(drafts, ours)
    pieces[-1] = b"ab"
    with pytest.raises(ValueError, match=f"its token {len(pieces) - 1} is b'aa' in place of b'ab'"):
        _check_same_tokens(Llama2cTokenizer(pieces, [0.0] * len(pieces)), drafts)
