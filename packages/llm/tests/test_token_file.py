"""Token files: what goes in comes out, mapped; damaged files are refused."""

import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oarlock.llm.data import TokenFile, token_file, write_tokens

HEADER = len(token_file.MAGIC) + 4


@settings(deadline=None, max_examples=30)
@given(ids=st.lists(st.integers(0, 65535), max_size=200))
def test_tokens_come_back(tmp_path_factory, ids):
    path = tmp_path_factory.mktemp("tokens") / "a.tokens"
    file = write_tokens(path, ids, tokenizer="byte")
    assert file.tokens.tolist() == ids and len(file) == len(ids)
    assert file.tokenizer == "byte" and file.tokens.dtype == np.uint16
    TokenFile(path, verify=True)


@pytest.mark.parametrize("count", [0, 1, 31, 33, 1000])
@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
def test_arrays_and_iterators_of_both_widths(tmp_path, count, dtype):
    ids = np.random.default_rng(count).integers(0, 60000, count)
    ids = ids + 100_000 if dtype == "uint32" else ids
    paths = [tmp_path / "array", tmp_path / "iterator"]
    write_tokens(paths[0], ids, dtype=dtype)
    write_tokens(paths[1], (int(i) for i in ids), dtype=dtype)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    file = TokenFile(paths[0], verify=True)
    assert file.tokens.dtype == np.dtype(dtype) and (file[:] == ids).all()


def test_long_input_is_consumed_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(token_file, "_CHUNK", 7)
    ids = np.arange(50)
    for source in (ids, iter(range(50)), range(50), ids.tolist()):
        assert (write_tokens(tmp_path / "a", source)[:] == ids).all()
    TokenFile(tmp_path / "a", verify=True)


def test_file_is_mapped_and_aligned(tmp_path):
    file = write_tokens(tmp_path / "a", [1, 2, 3])
    assert isinstance(file.tokens, np.memmap) and not file.tokens.flags.writeable
    assert file.tokens.offset % 64 == 0
    assert repr(file).endswith("3 uint16 tokens)")


@pytest.mark.parametrize(
    "tokens, options, message",
    [
        ([1, 2, -1], {}, r"in 0..65535 for dtype uint16, got -1 at position 2"),
        ([70000], {}, "got 70000 at position 0"),
        ([2**32], {"dtype": "uint32"}, "got 4294967296 at position 0"),
        ([0.5], {}, "tokens must be integers in one row, got float64"),
        (np.zeros([2, 2], int), {}, r"got int64 of shape \(2, 2\)"),
        ([1], {"dtype": "int8"}, "dtype must be one of"),
    ],
)
def test_bad_tokens_are_named_and_leave_no_file(tmp_path, tokens, options, message):
    with pytest.raises(ValueError, match=message):
        write_tokens(tmp_path / "a", tokens, **options)
    assert list(tmp_path.iterdir()) == []


def test_interrupted_writing_keeps_the_old_file(tmp_path):
    write_tokens(tmp_path / "a", [1, 2])

    def failing():
        yield 3
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_tokens(tmp_path / "a", failing())
    assert TokenFile(tmp_path / "a")[:].tolist() == [1, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.fixture
def path(tmp_path):
    write_tokens(tmp_path / "a.tokens", range(100))
    return tmp_path / "a.tokens"


@pytest.mark.parametrize(
    "length, message",
    [
        (0, "is not a token file: it begins with b''"),
        (5, "is not a token file"),
        (8, "is truncated: it ends inside its header"),
        (HEADER + 9, "is truncated: its header needs"),
        (-1, "is truncated: 100 uint16 tokens need"),
    ],
)
def test_truncated_files_are_refused(path, length, message):
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match=f"a.tokens {message}"):
        TokenFile(path)


def test_longer_and_foreign_files_are_refused(path):
    whole = path.read_bytes()
    path.write_bytes(whole + b"x")
    with pytest.raises(ValueError, match=f"is too long: .*need {len(whole)} bytes, found"):
        TokenFile(path)
    path.write_bytes(b"GGUF" + whole)
    with pytest.raises(ValueError, match="it begins with b'GGUFOART'"):
        TokenFile(path)


@pytest.mark.parametrize(
    "header",
    [
        b"{",
        b"[]",
        b"{}",
        b'{"dtype": "uint8", "count": 1, "tokenizer": "", "sha256": ""}',
        b'{"dtype": "uint16", "count": -1, "tokenizer": "", "sha256": ""}',
        b'{"dtype": "uint16", "count": "x", "tokenizer": "", "sha256": ""}',
        b'{"dtype": ["uint16"], "count": 1, "tokenizer": "", "sha256": ""}',
        b"\xff\xfe",
    ],
)
def test_corrupt_headers_are_refused(path, header):
    path.write_bytes(token_file.MAGIC + struct.pack("<I", len(header)) + header)
    with pytest.raises(ValueError, match="a.tokens is corrupt: its header"):
        TokenFile(path)


def test_changed_data_is_found_by_its_checksum(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    file = TokenFile(path)  # does not read the data
    with pytest.raises(ValueError, match="is corrupt: sha256 of its tokens is"):
        file.verify()
    with pytest.raises(ValueError, match="is corrupt: sha256"):
        TokenFile(path, verify=True)


def test_header_is_plain_json(path):
    content = path.read_bytes()
    (length,) = struct.unpack_from("<I", content, 8)
    header = json.loads(content[HEADER : HEADER + length])
    assert header["dtype"] == "uint16" and int(header["count"]) == 100
