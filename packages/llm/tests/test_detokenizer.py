"""Text that grows token by token, of every tokenizer."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oarlock.llm import tokenizers

NAMES = ["byte", "bpe", "unigram", "sentencepiece-bpe", "llama2c", "rwkv-world"]


def pushed(tokenizer, ids, **options):
    grows = tokenizers.Detokenizer(tokenizer, **options)
    return [grows.push([i]) for i in ids] + [grows.finish()]


def text_ids(tokenizer, ids):
    unused = {i for i in range(263, 300)} if tokenizer.vocab_size == 300 else set()
    special = set(tokenizer.special_tokens.values()) | unused
    return [i for i in ids if i not in special]


@settings(deadline=None, max_examples=60)
@given(data=st.data())
@pytest.mark.parametrize("name", NAMES)
def test_pushed_text_is_decoded_text(made, name, data):
    tokenizer = made[name]
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=12))
    ids = [
        i for i in ids if i in text_ids(tokenizer, [i]) or i in tokenizer.special_tokens.values()
    ]
    expected = tokenizer.decode(text_ids(tokenizer, ids))
    assert "".join(pushed(tokenizer, ids)) == expected
    grows = tokenizers.Detokenizer(tokenizer)
    assert grows.push(ids) + grows.finish() == expected


@settings(deadline=None, max_examples=60)
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁\0")))
@pytest.mark.parametrize("name", NAMES)
def test_whole_characters_only(made, name, text):
    tokenizer = made[name]
    parts = pushed(tokenizer, tokenizer.encode(text))
    assert "".join(parts) == text
    assert parts[-1] == "" and ("\ufffd" in text or not any("\ufffd" in part for part in parts))


def test_a_text_that_goes_on_keeps_its_space(made):
    tokenizer = made["llama2c"]
    ids = tokenizer.encode("the cat")
    begin = len(tokenizer.encode("the"))
    assert tokenizer.decode(ids[begin:]) == "cat"
    assert "".join(pushed(tokenizer, ids[begin:], continues=True)) == " cat"


@pytest.mark.parametrize("name", NAMES)
def test_token_bytes_are_those_of_the_text(made, name):
    tokenizer = made[name]
    text = "The cat, 秦川 🙂 é\n"
    joined = b"".join(map(tokenizer.token_bytes, tokenizer.encode(text)))
    assert joined.decode() == " " * tokenizer.adds_space + text
    for i in tokenizer.special_tokens.values():
        assert tokenizer.token_bytes(i) == b""
    with pytest.raises(ValueError, match="ids must be in"):
        tokenizer.token_bytes(tokenizer.vocab_size)


@pytest.mark.parametrize("name", NAMES)
def test_special_tokens_are_recognised_when_asked_for(made, name):
    tokenizer = made[name]
    for spelling, i in tokenizer.special_tokens.items():
        text = f"a{spelling}b{spelling}{spelling}"
        ids = tokenizer.encode(text, special=True)
        assert ids.count(i) == 3 and ids[-2:] == [i, i]
        assert i not in tokenizer.encode(text)
    assert tokenizer.encode("plain", special=True) == tokenizer.encode("plain")


def test_broken_characters_become_one_mark(made):
    tokenizer = made["byte"]
    assert pushed(tokenizer, [0x41, 0xE7, 0xA7, 0x42, 0xF0]) == [
        "A",
        "",
        "",
        "\ufffdB",
        "",
        "\ufffd",
    ]


def test_lone_surrogates_are_refused(made):
    for tokenizer in made.values():
        with pytest.raises(ValueError, match="without lone surrogates"):
            tokenizer.encode("a\ud800")
