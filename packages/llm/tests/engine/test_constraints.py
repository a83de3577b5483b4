"""Texts that must belong to a language."""

import json
import re

import numpy as np
import pytest
from oarlock.llm import models
from oarlock.llm.engine import LLM, Constraint, EngineConfig, SamplingParams
from oarlock.llm.engine.constraints import Constraints
from oarlock.llm.tokenizers import BPETokenizer, ByteTokenizer, Llama2cTokenizer

SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 8},
            "age": {"type": "integer", "minimum": 0, "maximum": 120},
            "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3},
        },
        "required": ["name", "age", "tags"],
        "additionalProperties": False,
    }
)
GRAMMAR = 'start: NUMBER "+" NUMBER\nNUMBER: /[0-9]{1,3}/'
REGEX = r"(yes|no), [a-f]{2,4}!"


def tokenizers(shared_data):
    words = "the name of a tag is yes or no and the age is 12 " * 20
    bpe = BPETokenizer.train([words], vocab_size=280, special_tokens=["<end>"])
    folder = shared_data("weights/stories260K")
    return {
        "bytes": (ByteTokenizer(), ()),
        "bpe": (bpe, (bpe.special_tokens["<end>"],)),
        "llama2c": (Llama2cTokenizer.from_file(folder / "tok512.bin"), (2, 1)),
    }


def opened(tokenizer, ends, **options):
    config = models.llama.LlamaConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=32, num_layers=1, num_heads=4, max_length=300
    )
    llm = LLM(models.create("llama", config), tokenizer=tokenizer, config=EngineConfig(**options))
    llm.engine.ends = frozenset(ends)
    llm.engine._constrain = Constraints(tokenizer, tokenizer.vocab_size, ends)
    return llm


@pytest.mark.parametrize("name", ["bytes", "bpe", "llama2c"])
@pytest.mark.parametrize(
    "constraint",
    [
        Constraint("json_schema", SCHEMA),
        Constraint("regex", REGEX),
        Constraint("grammar", GRAMMAR),
    ],
    ids=lambda one: one.kind,
)
def test_texts_of_a_random_model_belong_to_the_language(name, constraint, shared_data):
    tokenizer, ends = tokenizers(shared_data)[name]
    params = SamplingParams(max_tokens=200, n=6, seed=0, constraint=constraint)
    for guesses in (0, 4):
        prompt = list(tokenizer.encode("the name is"))
        result = opened(tokenizer, ends, guesses=guesses).generate([prompt], params)[0]
        assert len({one.text for one in result.completions}) > 1
        for one in result.completions:
            assert one.finish_reason == "stop", one
            if constraint.kind == "json_schema":
                found = json.loads(one.text)
                assert set(found) == {"name", "age", "tags"} and 0 <= found["age"] <= 120
                assert len(found["name"]) <= 8 and set(found["tags"]) <= {"a", "b"}
            elif constraint.kind == "regex":
                assert re.fullmatch(REGEX, one.text)
            else:
                assert re.fullmatch(r"\d{1,3}\+\d{1,3}", one.text)


def test_any_json_is_json_where_it_ends():
    llm = opened(ByteTokenizer(), ())
    params = SamplingParams(max_tokens=60, n=8, seed=1, constraint=Constraint("json"))
    ended = [
        one.text
        for one in llm.generate(["x"], params)[0].completions
        if one.finish_reason == "stop"
    ]
    assert ended
    for text in ended:
        json.loads(text)


def test_the_end_may_come_only_where_the_text_is_whole():
    tokenizer = BPETokenizer.train(["aab " * 30], vocab_size=258, special_tokens=["<end>"])
    end = tokenizer.special_tokens["<end>"]
    matcher = Constraints(tokenizer, tokenizer.vocab_size, (end,))(Constraint("regex", "ab+"))
    zeros = np.zeros(tokenizer.vocab_size, np.float32)
    assert matcher.mask(zeros)[end] == -np.inf
    for letter, whole in (("a", False), ("b", True), ("b", True)):
        matcher.accept(tokenizer.encode(letter)[0])
        assert matcher.mask(zeros)[end] == (0 if whole else -np.inf)


@pytest.mark.parametrize(
    "constraint",
    [
        Constraint("json_schema", '{"type": "nothing"}'),
        Constraint("json_schema", "{"),
        Constraint("regex", "("),
        Constraint("grammar", "start: missing"),
    ],
    ids=lambda one: one.source,
)
def test_sources_that_cannot_be_read_are_refused(constraint):
    llm = opened(ByteTokenizer(), ())
    with pytest.raises(ValueError, match="constraint cannot be read"):
        llm.generate("x", SamplingParams(max_tokens=3, constraint=constraint))
    assert not llm.engine.has_work
    assert llm.generate("x", SamplingParams(max_tokens=3))[0].usage.completion_tokens == 3
