"""What every tokenizer must do."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oarlock.llm import tokenizers

NAMES = ["byte", "bpe", "unigram", "sentencepiece-bpe", "llama2c", "rwkv-world"]


@pytest.fixture(params=NAMES)
def tokenizer(request, made):
    return made[request.param]


# U+2581 and U+0000 are what SentencePiece itself writes for a space and ends strings with.
any_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁\0"))


@settings(deadline=None, max_examples=60)
@given(text=any_text)
@pytest.mark.parametrize("name", NAMES)
def test_any_text_comes_back(made, name, text):
    tokenizer = made[name]
    ids = tokenizer.encode(text)
    assert all(isinstance(i, int) and 0 <= i < tokenizer.vocab_size for i in ids)
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "  two  spaces  ",
        "\n\n\ttabs\r\n",
        "秦川雄帝宅",
        "👩‍👩‍👧 🙂 é",
        "<s></s><unk><|end|><0x41>",
        "Zoë said: naïve café, 1,234.5 %",
    ],
)
def test_special_texts_come_back(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_all_of_them_are_here(made):
    assert list(made) == NAMES
    assert {type(one).__name__ for one in made.values()} == set(tokenizers.__all__) - {
        "Detokenizer",
        "Tokenizer",
    }


def test_empty_text_has_no_tokens(tokenizer):
    assert tokenizer.encode("") == []
    assert tokenizer.decode([]) == ""


def test_special_tokens_are_no_text(tokenizer):
    for name, i in tokenizer.special_tokens.items():
        assert 0 <= i < tokenizer.vocab_size
        assert i not in tokenizer.encode(f"a {name} b")


def test_ids_may_be_an_array(tokenizer):
    ids = tokenizer.encode("the river")
    assert tokenizer.decode(np.array(ids, np.uint16)) == "the river"


def test_unknown_ids_are_named(tokenizer):
    size = tokenizer.vocab_size
    for bad in (-1, size):
        with pytest.raises(ValueError, match=rf"0..{size - 1}, got {bad} at position 1"):
            tokenizer.decode([tokenizer.encode("a")[0], bad])
    with pytest.raises(ValueError, match="ids must be integers in one row"):
        tokenizer.decode([0.5])
    with pytest.raises(ValueError, match="ids must be integers in one row"):
        tokenizer.decode([[1, 2]])


def test_text_must_be_text(tokenizer):
    with pytest.raises(ValueError, match="text must be a str, got bytes"):
        tokenizer.encode(b"bytes")


def test_broken_utf8_is_shown_as_such(made):
    assert tokenizers.ByteTokenizer().decode(list("秦".encode())[:2]) == "\ufffd"
    assert made["rwkv-world"].decode([0xE7 + 1]) == "\ufffd"
    assert made["bpe"].decode(made["bpe"].encode("🙂")[:1]) == "\ufffd"
