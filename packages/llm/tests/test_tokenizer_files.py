"""Files of tokenizers: trained, saved, read; the published ones; broken ones refused."""

import gzip
import json
import struct

import pytest

from oarlock.llm import tokenizers


def test_bpe_goes_through_a_file(tmp_path, made, texts):
    path = tmp_path / "tokenizer.json"
    made["bpe"].save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["tokenizer.json"]
    loaded = tokenizers.BPETokenizer.from_file(path)
    packed = tmp_path / "tokenizer.json.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    for other in (loaded, tokenizers.BPETokenizer.from_file(packed)):
        assert other.vocab_size == made["bpe"].vocab_size
        assert other.special_tokens == {"<|end|>": 0}
        assert [other.encode(t) for t in texts] == made["bpe"].encode_batch(texts)


def test_training_is_deterministic_and_shortens_text(tmp_path, made, texts):
    again = tokenizers.BPETokenizer.train(texts, vocab_size=320, special_tokens=["<|end|>"])
    pieces = tokenizers.SentencePieceTokenizer.train(texts, vocab_size=340)
    assert pieces.model == made["unigram"].model
    for text in texts:
        assert again.encode(text) == made["bpe"].encode(text)
        assert len(again.encode(text)) < len(text.encode())


def test_bpe_takes_what_there_is_when_told_to():
    made = tokenizers.BPETokenizer.train(["short"], vocab_size=4096, exact=False)
    assert made.vocab_size == 260 and made.decode(made.encode("short")) == "short"


def test_sentencepiece_goes_through_a_file(tmp_path, made, texts):
    path = tmp_path / "spm.model"
    made["unigram"].save(path)
    loaded = tokenizers.SentencePieceTokenizer.from_file(path)
    assert [loaded.encode(t) for t in texts] == [made["unigram"].encode(t) for t in texts]
    assert loaded.special_tokens == {"<s>": 1, "</s>": 2}


def test_truncated_and_foreign_files_are_refused(tmp_path, made):
    bpe, spm = tmp_path / "tokenizer.json", tmp_path / "spm.model"
    made["bpe"].save(bpe)
    made["unigram"].save(spm)
    readers = {bpe: tokenizers.BPETokenizer, spm: tokenizers.SentencePieceTokenizer}
    for path, kind in readers.items():
        whole = path.read_bytes()
        for content in (b"", whole[:-10], whole[: len(whole) // 2], b"\x00\xffno"):
            path.write_bytes(content)
            with pytest.raises(ValueError, match=path.name) as error:
                kind.from_file(path)
            assert f"{len(content)} bytes" in str(error.value)
        with pytest.raises(FileNotFoundError, match="nowhere"):
            kind.from_file(tmp_path / "nowhere")
    packed = tmp_path / "tokenizer.json.gz"
    packed.write_bytes(gzip.compress(b"{}" * 50)[:-5])
    with pytest.raises(ValueError, match="is truncated or no gzip file"):
        tokenizers.BPETokenizer.from_file(packed)


@pytest.mark.parametrize(
    "train, message",
    [
        (lambda texts: tokenizers.BPETokenizer.train(texts, vocab_size=255), "at least 256"),
        (
            lambda texts: tokenizers.BPETokenizer.train(texts, vocab_size=257, special_tokens="ab"),
            "at least 258",
        ),
        (
            lambda texts: tokenizers.BPETokenizer.train(["short"], vocab_size=4096),
            "vocab_size must be at most 260, .* got 4096: choose a smaller",
        ),
        (lambda texts: tokenizers.BPETokenizer.train("text", vocab_size=300), r"write \[text\]"),
        (
            lambda texts: tokenizers.SentencePieceTokenizer.train("t", vocab_size=300),
            r"write \[text\]",
        ),
        (
            lambda texts: tokenizers.SentencePieceTokenizer.train(texts, vocab_size=9),
            "at least 260",
        ),
        (lambda texts: tokenizers.SentencePieceTokenizer.train([], vocab_size=300), r"\(0 lines\)"),
        (
            lambda texts: tokenizers.SentencePieceTokenizer.train(
                texts, vocab_size=300, model_type="x"
            ),
            "model_type must be",
        ),
    ],
)
def test_bad_training_arguments_are_named(train, message, texts):
    with pytest.raises(ValueError, match=message):
        train(texts)


def gpt2_files(tmp_path):
    """A vocabulary and merges in GPT-2's format that can spell "hello there"."""
    vocab = {c: i for i, c in enumerate("helortĠ")} | {"he": 7, "Ġt": 8, "<|endoftext|>": 9}
    (tmp_path / "encoder.json").write_text(json.dumps(vocab), encoding="utf-8")
    (tmp_path / "vocab.bpe").write_text("#version: 0.2\nh e\nĠ t\n", encoding="utf-8")
    return tmp_path / "encoder.json", tmp_path / "vocab.bpe"


def test_gpt2_pair_of_files(tmp_path):
    vocab, merges = gpt2_files(tmp_path)
    tokenizer = tokenizers.BPETokenizer.from_gpt2_files(vocab, merges)
    assert tokenizer.encode("hello the") == [7, 2, 2, 3, 8, 7]
    assert tokenizer.decode([7, 2, 2, 3, 8, 7]) == "hello the"
    assert tokenizer.special_tokens == {"<|endoftext|>": 9}
    assert tokenizer.vocab_size == 10


def test_broken_gpt2_files_are_refused(tmp_path):
    vocab, merges = gpt2_files(tmp_path)
    with pytest.raises(ValueError, match="special_tokens must be in .*encoder.json"):
        tokenizers.BPETokenizer.from_gpt2_files(vocab, merges, special_tokens=["<|no|>"])
    with pytest.raises(FileNotFoundError, match="nowhere"):
        tokenizers.BPETokenizer.from_gpt2_files(vocab, tmp_path / "nowhere")
    merges.write_text("#version: 0.2\nx y\n")
    with pytest.raises(ValueError, match="no vocabulary and its merges"):
        tokenizers.BPETokenizer.from_gpt2_files(vocab, merges)
    vocab.write_text('{"h": 0,')
    with pytest.raises(ValueError, match="or truncated"):
        tokenizers.BPETokenizer.from_gpt2_files(vocab, merges)


def write_llama2c(path, pieces, scores):
    records = [struct.pack("<fi", s, len(p)) + p for p, s in zip(pieces, scores)]
    path.write_bytes(struct.pack("<i", 7) + b"".join(records))


def test_llama2c_file_and_its_truncations(tmp_path, made):
    path, made = tmp_path / "tok.bin", made["llama2c"]
    write_llama2c(path, made._pieces, made._scores)
    loaded = tokenizers.Llama2cTokenizer.from_file(path)
    assert loaded.encode("then the 秦 é") == made.encode("then the 秦 é")
    assert loaded.decode([1, *loaded.encode("the")]) == "the"  # <s> is not shown
    whole = path.read_bytes()
    for length in (0, 3, 8, 9, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"tok.bin is truncated.*found"):
            tokenizers.Llama2cTokenizer.from_file(path)
    path.write_bytes(whole[:4] + struct.pack("<fi", 0.0, -5))
    with pytest.raises(ValueError, match="piece 0 has length -5"):
        tokenizers.Llama2cTokenizer.from_file(path)
    path.write_bytes(whole[:4])
    with pytest.raises(ValueError, match="pieces must be at least 259"):
        tokenizers.Llama2cTokenizer.from_file(path)


def test_llama2c_joins_the_best_pair_first(made):
    made = made["llama2c"]
    names = {piece: i for i, piece in enumerate(made._pieces)}
    # " the": " t" (-0.5) goes first, so that "he" (-2) follows and " the" joins both
    assert made.encode("the") == [names[b" the"]]
    assert made.encode("th") == [names[b" t"], names[b"h"]]


def write_rwkv(path, tokens):
    lines = [f"{i} {token!r} {len(token)}" for i, token in tokens.items()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_rwkv_file_and_its_faults(tmp_path, made):
    path, made = tmp_path / "vocab.txt", made["rwkv-world"]
    write_rwkv(path, made._bytes)
    loaded = tokenizers.RWKVWorldTokenizer.from_file(path)
    assert loaded.encode("there\n\n秦川") == made.encode("there\n\n秦川") == [259, 262, 260]
    lines = path.read_text(encoding="utf-8").splitlines()
    for content, message in (
        ("\n".join([*lines[:100], lines[100][:-3]]), "line 101 must be an id"),
        ("\n".join(lines[:200]), "every single byte, but 200 is absent"),
        ("", "got 0"),
        ("70000 b'x' 1", "ids in 1..65535"),
    ):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match=rf"vocab.txt.*{message}"):
            tokenizers.RWKVWorldTokenizer.from_file(path)
    with pytest.raises(ValueError, match="0..299, got 300"):
        made.decode([300])
    with pytest.raises(ValueError, match="299 stands for no token"):
        made.decode([299])


# Ids from transformers 4.57's slow GPT2Tokenizer, an implementation in plain Python.
GPT2_IDS = {
    "Hello world": [15496, 995],
    " don't  stop\n\nnow\t12345": [836, 470, 220, 2245, 198, 198, 2197, 197, 10163, 2231],
    "naïve 秦川 🙂": [2616, 38776, 13328, 100, 99, 32432, 251, 32485],
}


@pytest.mark.parametrize("text", GPT2_IDS)
def test_published_gpt2_vocabulary(shared_data, text):
    folder = shared_data("llm/tokenizers")
    tokenizer = tokenizers.BPETokenizer.from_gpt2_files(
        folder / "gpt2_encoder.json", folder / "gpt2_vocab.bpe"
    )
    assert tokenizer.vocab_size == 50257
    assert tokenizer.special_tokens == {"<|endoftext|>": 50256}
    assert tokenizer.encode(text) == GPT2_IDS[text]
    assert tokenizer.decode(GPT2_IDS[text]) == text
    assert 50256 not in tokenizer.encode("<|endoftext|>")


def test_published_neox_and_rwkv_vocabularies(shared_data):
    folder = shared_data("llm/tokenizers")
    text = "The quick brown fox; 秦川雄帝宅。\n\n    indented\t🙂"
    neox = tokenizers.BPETokenizer.from_file(folder / "gptneox_20B_tokenizer.json.gz")
    assert neox.decode(neox.encode(text)) == text
    world = tokenizers.RWKVWorldTokenizer.from_file(folder / "rwkv_vocab_v20230424.txt.gz")
    assert world.decode(world.encode(text)) == text
    assert len(world.encode(text)) < len(text)


def test_published_llama2c_tokenizer(shared_data):
    tokenizer = tokenizers.Llama2cTokenizer.from_file(
        shared_data("weights/stories260K") / "tok512.bin"
    )
    assert tokenizer.vocab_size == 512
    assert tokenizer.encode("Once upon a time") == [403, 407, 261, 378]
