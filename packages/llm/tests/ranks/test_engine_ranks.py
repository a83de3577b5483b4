"""The engine over several processes: what one process gives, for every kind of use."""

import dataclasses
import os
import signal
import time

import numpy as np
import pytest
from oarlock.native.decoder import Rows

from oarlock.llm import loading, models
from oarlock.llm.engine import LLM, EngineConfig, SamplingParams
from oarlock.llm.engine.sampling import log_softmax
from oarlock.llm.ranks import RanksConfig, leader, members
from oarlock.llm.tokenizers import ByteTokenizer, Llama2cTokenizer

GREEDY = SamplingParams(temperature=0.0, max_tokens=9, ignore_eos=True)
ONE = EngineConfig(threads=1)
TOKENS = [3, 77, 270, 12, 0, 131, 200, 5, 9, 64]


def logits(llm, tokens):
    """Of every token, [T, V]."""
    rows = Rows(tokens, 0, range(-(-len(tokens) // 16)))
    return llm.engine._forward([rows], range(len(tokens)))


def check(one, several, tokens, allowed=1e-5):
    wanted, found = logits(one, tokens), logits(several, tokens)
    np.testing.assert_allclose(found, wanted, rtol=allowed, atol=allowed * np.abs(wanted).max())
    prompts = [tokens, tokens[:3]]
    texts = [[r.completions[0].tokens for r in x.generate(prompts, GREEDY)] for x in (one, several)]
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    "name,ranks",
    [
        *((name, 2) for name in ("gpt2", "bloom", "llama", "glm", "mixtral")),
        *((name, 4) for name in ("gpt2", "chatglm", "qwen2")),
        ("mistral-q8_0.gguf", 2),
    ],
)
def test_files_of_all_families(fixtures, name, ranks):
    """With four ranks, chatglm and qwen2 have fewer heads of keys than ranks."""
    one = LLM(fixtures / name, config=ONE)
    several = LLM(fixtures / name, config=ONE, ranks=ranks)
    try:
        check(one, several, [token % one.engine.model.vocab for token in TOKENS])
        assert several.opened.parameters == one.opened.parameters
        assert several.engine.stats()["rank_exchanges"] > 0
    finally:
        several.close()


@pytest.mark.parametrize("ranks", [2, 4])
def test_real_weights_tell_the_same_story(shared_data, ranks):
    folder = shared_data("weights/stories260K")
    tokenizer = Llama2cTokenizer.from_file(folder / "tok512.bin")
    params = dataclasses.replace(GREEDY, max_tokens=200 if ranks == 2 else 60)
    stories = []
    for count in (1, ranks):
        llm = LLM(folder / "stories260K.bin", tokenizer=tokenizer, config=ONE, ranks=count)
        try:
            found = llm.generate(["Once upon a time", "Lily and Tom went to"], params)
            stories.append([one.text for one in found])
        finally:
            llm.close()
    assert stories[0] == stories[1]
    assert stories[0][0].startswith(", there was a little girl named Lily.")


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_rounded_weights_are_rounded_as_in_one_process(shared_data, weights):
    """Rows may be rounded to either side after sums in another order, so losses are compared."""
    folder = shared_data("weights/stories260K")
    options = {"tokenizer": Llama2cTokenizer.from_file(folder / "tok512.bin"), "config": ONE}
    path, losses = folder / "stories260K.bin", []
    text = "Once upon a time, there was a little girl named Lily. She loved to play outside."
    for count in (1, 2):
        llm = LLM(path, weights=weights, ranks=count, **options)
        try:
            losses.append(np.array([one.logprob for one in llm.score([text])[0]]))
        finally:
            llm.close()
    assert np.abs(losses[0] - losses[1]).mean() < 0.02
    with pytest.raises(ValueError, match="ranks must be fewer than 4.* or weights of fp32 or bf16"):
        LLM(path, weights=weights, ranks=4, **options)


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


PROMPTS = [list(b"the quick brown fox"), list(b"a"), list(b"jumps over the lazy dog, and again")]
PROMPTS += [PROMPTS[2] + list(b" over it"), PROMPTS[0] + list(b" the quick")]


@pytest.fixture
def pair(byte_model):
    """Engines alike but for the number of ranks, by options of the engine."""
    made = []

    def build(**options):
        config = EngineConfig(threads=1, **options)
        for count in (1, 2):
            made.append(LLM(byte_model, tokenizer=ByteTokenizer(), config=config, ranks=count))
        return made[-2:]

    yield build
    for one in made:
        one.close()


def test_forks_preemption_shared_prefixes_guesses_and_embeddings(pair):
    """Little memory and few rows a step; each follower's pages are what the leader thinks they are."""
    params = [
        dataclasses.replace(GREEDY, max_tokens=30),
        SamplingParams(max_tokens=20, n=3, seed=5, temperature=0.7),
        SamplingParams(max_tokens=25, seed=1, temperature=0.9, logprobs=2),
        GREEDY,
        dataclasses.replace(GREEDY, max_tokens=40),
    ]
    one, several = pair(cache_tokens=160, most_rows=24, most_texts=5, guesses=3)
    found = [llm.generate(PROMPTS, params) for llm in (one, several)]
    for left, right in zip(*found):
        assert [c.tokens for c in left.completions] == [c.tokens for c in right.completions]
    stats = several.engine.stats()
    assert stats["preemptions"] > 0 and stats["tokens_guessed"] > 0
    again = [llm.generate(PROMPTS[2:4], GREEDY) for llm in (one, several)]
    assert [r.usage.cached_tokens for r in again[0]] == [r.usage.cached_tokens for r in again[1]]
    assert again[1][1].usage.cached_tokens >= 32
    np.testing.assert_allclose(several.embed(PROMPTS), one.embed(PROMPTS), atol=1e-5)


def test_bits_do_not_depend_on_the_batch(pair):
    _, several = pair()
    alone = several.score(PROMPTS[:1])[0]
    beside = several.score(PROMPTS)[0]
    assert [one.logprob for one in alone] == [one.logprob for one in beside]


def test_what_is_refused_leaves_the_ranks_as_they_are(pair):
    _, several = pair()
    engine = several.engine
    for tokens, start, pages, message in (
        ([256], 0, [0], r"tokens must be in \[0, 256\)"),
        ([1], 0, [engine.cache.pages], "pages must be in"),
        ([1] * 10, 160, [0] * 11, "max_length is 160"),
    ):
        with pytest.raises(ValueError, match=message):
            engine._forward([Rows(tokens, start, pages)], [0])
    with pytest.raises(ValueError, match="target must be in"):
        engine.cache.copy_page(0, engine.cache.pages)
    assert len(several.generate([PROMPTS[0]], GREEDY)[0].completions[0].tokens) == 9


def test_a_killed_follower_is_an_error_now_and_later(byte_model):
    llm = LLM(byte_model, config=ONE, ranks=4, tokenizer=ByteTokenizer())
    processes = llm.engine._team.processes
    stream = llm.stream(PROMPTS[0], dataclasses.replace(GREEDY, max_tokens=100))
    next(stream)
    processes[2].kill()
    start = time.monotonic()
    with pytest.raises(ConnectionError, match="rank 2"):
        list(stream)
    with pytest.raises(ConnectionError, match="rank 2"):
        llm.generate([PROMPTS[0]], GREEDY)
    assert time.monotonic() - start < 5
    assert all(one.poll() is not None for one in processes.values())


def test_a_silent_follower_is_an_error_after_its_time(byte_model, monkeypatch):
    monkeypatch.setattr(members, "END_S", 0.3)
    llm = LLM(byte_model, config=ONE, ranks=RanksConfig(count=2, timeout_s=2.0))
    process = llm.engine._team.processes[1]
    os.kill(process.pid, signal.SIGSTOP)
    start = time.monotonic()
    with pytest.raises(ConnectionError, match="rank 1 has not answered in time"):
        llm.generate([PROMPTS[0]], GREEDY)
    assert time.monotonic() - start < 10 and process.poll() is not None


def test_followers_end_with_the_model_and_ignore_signals_of_the_group(byte_model):
    llm = LLM(byte_model, config=ONE, ranks=2)
    process = llm.engine._team.processes[1]
    for number in (signal.SIGINT, signal.SIGTERM):
        process.send_signal(number)
    assert llm.generate([PROMPTS[0]], GREEDY)[0].completions[0].tokens
    del llm  # as where nobody closes it
    assert process.wait(10) == 0


def test_what_fails_at_the_beginning_leaves_no_process(byte_model, monkeypatch):
    made = []
    monkeypatch.setattr(leader.Team, "deliver", lambda self, *_: made.append(self) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        LLM(byte_model, ranks=2)
    assert made[0].processes[1].poll() is not None


def test_ctrl_c_waits_until_all_have_heard_the_same(byte_model):
    llm = LLM(byte_model, config=ONE, ranks=2)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    done = []
    try:
        with pytest.raises(KeyboardInterrupt):
            with members.uninterrupted():
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.05)
                done.append(True)
        tell = llm.engine._team.tell

        def told(*given):
            os.kill(os.getpid(), signal.SIGINT)
            tell(*given)

        llm.engine._team.tell = told
        with pytest.raises(KeyboardInterrupt):
            llm.generate([PROMPTS[0]], GREEDY)
        llm.engine._team.tell = tell
        assert done and llm.generate([PROMPTS[0]], GREEDY)[0].completions[0].tokens
    finally:
        signal.signal(signal.SIGINT, before)
        llm.close()


def test_configurations_that_make_no_sense_are_refused(byte_model):
    for options, message in (
        ({"count": 0}, "ranks must be an integer in 1..64, got 0"),
        ({"count": 65}, "got 65"),
        ({"timeout_s": 0.0}, "timeout_s must be positive"),
        ({"listen": "here"}, 'listen must be "host:port"'),
        ({"listen": "::1:70000"}, 'listen must be "host:port"'),
        ({"listen": "127.0.0.1:0"}, "token must have 16 characters"),
        ({"listen": "127.0.0.1:0", "token": "short"}, "token must have 16 characters"),
        ({"token": "x" * 16}, "token must not be given without listen"),
        ({"count": 1, "listen": "127.0.0.1:0", "token": "x" * 16}, "ranks must be 2 or more"),
    ):
        with pytest.raises(ValueError, match=message):
            RanksConfig(**options)
    assert "secret" not in repr(RanksConfig(listen="127.0.0.1:0", token="secret" * 4))
    with pytest.raises(ValueError, match="ranks must be at most 2, the model's heads of keys"):
        LLM(byte_model, ranks=3 + 2)


@pytest.mark.parametrize(
    "name,ranks",
    [*((name, 2) for name in ("gpt2", "bloom", "glm", "mixtral", "llama")), ("qwen2", 4)],
)
def test_adapters_that_peft_wrote_give_its_scores(fixtures, name, ranks):
    """Beside texts of the model alone; qwen2 has two heads of keys, each at two ranks."""
    llm = LLM(fixtures / name, adapters={"tuned": fixtures / f"{name}-lora"}, ranks=ranks)
    try:
        tokens = np.array(TOKENS) % llm.engine.model.vocab
        params = SamplingParams(max_tokens=0, prompt_logprobs=0)
        results = llm.generate([tokens] * 3, params, adapter=["tuned", None, "tuned"])
    finally:
        llm.close()
    for result, file in zip(results, (f"{name}-lora", name, f"{name}-lora")):
        logprobs = log_softmax(np.load(fixtures / f"{file}.npy")[0])
        places = tokens[len(tokens) - len(logprobs) + 1 :]
        wanted = [row[token] for row, token in zip(logprobs[:-1], places)]
        found = [one.logprob for one in result.prompt_logprobs[-len(wanted) :]]
        np.testing.assert_allclose(found, wanted, atol=2e-4)
    assert results[0].prompt_logprobs == results[2].prompt_logprobs != results[1].prompt_logprobs


def test_adapters_come_and_go_at_all_ranks(fixtures):
    given = fixtures / "llama-lora"
    one, several = (LLM(fixtures / "llama", config=ONE, ranks=count) for count in (1, 2))
    try:
        plain = several.generate([TOKENS], GREEDY)[0].completions[0].tokens
        for llm in (one, several):
            llm.load_adapter("first", given)
            llm.unload_adapter("first")
            llm.load_adapter("second", given)
        texts = [
            llm.generate([TOKENS], GREEDY, adapter="second")[0].completions[0].tokens
            for llm in (one, several)
        ]
        assert texts[0] == texts[1] != plain
        with pytest.raises(ValueError, match="adapter must be one of second"):
            several.generate([TOKENS], GREEDY, adapter="first")
        wrong = loading.load_adapter(given, several.opened.checkpoint)
        name, change = next(iter(wrong.changes.items()))
        wrong = dataclasses.replace(
            wrong, changes={name: dataclasses.replace(change, b=change.b[:, :-1])}
        )
        with pytest.raises(ValueError, match=f"{name} must have"):
            several.load_adapter("wrong", wrong)
        assert several.generate([TOKENS], GREEDY)[0].completions[0].tokens == plain
    finally:
        several.close()
