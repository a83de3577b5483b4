"""The data registry: lookup order, hashes, downloads from a local server, corpora, substitutes."""

import gzip
import hashlib
import http.server
import json
import lzma
import threading
import zipfile
from functools import partial
from pathlib import Path

import pytest

from oarlock.accept import data
from oarlock.accept.data import fallback, verify
from oarlock.accept.data.build import poems, zip_files
from oarlock.accept.data.registry import DataFile, Dataset, Registry, load
from oarlock.accept.data.store import Store

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TEXT = b"To be, or not to be\n" * 50
TABLE = b"a,b\n1,2\n" * 40


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def dataset(name: str, *files: dict, aliases: tuple[str, ...] = ()) -> Dataset:
    return Dataset.model_validate(
        {
            "name": name,
            "aliases": aliases,
            "repository": "someone/something",
            "commit": COMMIT,
            "licence": "CC0",
            "content": "made for a test",
            "file": files,
        }
    )


def copied(name: str = "text.txt", content: bytes = TEXT) -> dict:
    upstream = [{"path": f"some folder/{name}", "sha256": sha256(content)}]
    return {
        "name": name,
        "bytes": len(content),
        "sha256": sha256(content),
        "build": "copy",
        "upstream": upstream,
    }


def gzipped(name: str = "table.csv.gz", content: bytes = TABLE) -> dict:
    return {
        "name": name,
        "bytes": 1,
        "sha256": sha256(b"another compressor's output"),
        "content_sha256": sha256(content),
        "build": "gzip",
        "upstream": [{"path": "table.csv", "sha256": sha256(content)}],
    }


def closed(name: str = "closed.npz", content: bytes = b"arrays") -> dict:
    return {
        "name": name,
        "bytes": len(content),
        "sha256": sha256(content),
        "build": "none",
        "reason": "scaled by hand",
    }


@pytest.fixture
def registry() -> Registry:
    return Registry(
        [
            dataset("test/text", copied(), aliases=("words",)),
            dataset("test/pair", copied(), gzipped()),
            dataset("test/closed", closed()),
        ]
    )


@pytest.fixture
def site(tmp_path: Path):
    """A folder served at 127.0.0.1, and its address; `site.requests` are the paths asked for."""
    folder = tmp_path / "site"
    (folder / "someone/something" / COMMIT / "some folder").mkdir(parents=True)
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *args):
            pass

    handler = partial(Handler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()

    class Site:
        root = folder / "someone/something" / COMMIT
        base = f"http://127.0.0.1:{server.server_port}"
        requests = asked

    yield Site
    server.shutdown()
    server.server_close()
    thread.join(timeout=10)


def closed_port_address() -> str:
    """An address where nobody listens."""
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    port = server.server_port
    server.server_close()
    return f"http://127.0.0.1:{port}"


@pytest.fixture
def store(tmp_path: Path, registry: Registry) -> Store:
    """A store that can reach nothing."""
    archive = tmp_path / "archive"
    archive.mkdir()
    return Store(
        registry=registry, archive=archive, cache=tmp_path / "cache", base=closed_port_address()
    )


def put(root: Path | None, name: str, content: bytes) -> Path:
    assert root is not None
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_archive_comes_first_then_the_cache(store: Store):
    cached = put(store.cache, "test/text/text.txt", TEXT)
    assert store.path("test/text", "text.txt") == cached
    archived = put(store.archive, "test/text/text.txt", TEXT)
    assert store.path("test/text", "text.txt") == archived
    assert store.path("words") == archived.parent


def test_wrong_contents_are_refused_naming_both_hashes(store: Store):
    wrong = TEXT.replace(b"not", b"now")
    path = put(store.archive, "test/text/text.txt", wrong)
    put(store.cache, "test/text/text.txt", TEXT)  # a good copy elsewhere does not hide it
    with pytest.raises(data.DataCorrupt) as caught:
        store.path("test/text", "text.txt")
    for part in (str(path), sha256(TEXT), sha256(wrong), "remedy: delete this file"):
        assert part in str(caught.value)
    assert not store.status("test/text").present
    assert sha256(wrong) in store.status("test/text").reason


def test_truncated_file_is_refused_with_its_size(store: Store):
    put(store.archive, "test/text/text.txt", TEXT[:-3])
    with pytest.raises(data.DataCorrupt, match=f"{len(TEXT) - 3} bytes instead of {len(TEXT)}"):
        store.path("test/text")


def test_truncated_archive_is_refused(store: Store):
    put(store.archive, "test/pair/text.txt", TEXT)
    whole = gzip.compress(TABLE)
    path = put(store.archive, "test/pair/table.csv.gz", whole)
    assert store.path("test/pair") == path.parent  # its contents are right, its compressor another
    path.write_bytes(whole[:-9])
    with pytest.raises(data.DataCorrupt, match="table.csv.gz"):
        store.path("test/pair")


def test_file_changed_after_the_first_look_is_noticed(store: Store):
    path = put(store.archive, "test/text/text.txt", TEXT)
    store.path("test/text")
    path.write_bytes(TEXT + b"!")
    with pytest.raises(data.DataCorrupt):
        store.path("test/text")


def test_a_file_is_hashed_once(store: Store, monkeypatch: pytest.MonkeyPatch):
    put(store.archive, "test/text/text.txt", TEXT)
    hashed = []
    original = verify.file_sha256
    monkeypatch.setattr(verify, "file_sha256", lambda p: hashed.append(p) or original(p))
    for _ in range(3):
        store.path("test/text")
    assert len(hashed) == 1


def test_missing_everywhere_names_the_remedy(store: Store):
    with pytest.raises(data.DataMissing) as caught:
        store.path("test/text")
    message = str(caught.value)
    assert "test/text: text.txt is not here" in message
    assert "cannot be reached" in message
    assert "set OARLOCK_DATA to a folder that holds test/text/text.txt" in message
    assert f"{store.base}/someone/something/{COMMIT}/some%20folder/text.txt" in message
    assert issubclass(data.DataMissing, LookupError)


def test_missing_archive_that_cannot_be_built_says_so(store: Store):
    with pytest.raises(data.DataMissing) as caught:
        store.path("test/closed")
    assert "scaled by hand" in str(caught.value)
    assert f"https://github.com/someone/something/tree/{COMMIT}" in str(caught.value)
    assert "only as archive: scaled by hand" in store.status("test/closed").reason


def test_download_can_be_declined(store: Store, site):
    store.base = site.base
    with pytest.raises(data.DataMissing, match="as asked"):
        store.path("test/text", download=False)
    assert site.requests == []


def test_downloads_build_the_cache_once(store: Store, site):
    store.base = site.base
    (site.root / "some folder/text.txt").write_bytes(TEXT)
    (site.root / "table.csv").write_bytes(TABLE)
    folder = store.path("test/pair")
    assert folder == store.cache / "test/pair"
    assert (folder / "text.txt").read_bytes() == TEXT
    assert gzip.decompress((folder / "table.csv.gz").read_bytes()) == TABLE
    assert sorted(path.name for path in folder.iterdir()) == ["table.csv.gz", "text.txt"]
    assert len(site.requests) == 2
    store.path("test/pair")
    assert len(site.requests) == 2
    assert [path.name for path in store.cache.iterdir()] == ["test"]  # nothing left behind
    assert store.status("test/pair").present


def test_folder_is_made_whole_from_archive_and_download(store: Store, site):
    store.base = site.base
    put(store.archive, "test/pair/text.txt", TEXT)
    (site.root / "table.csv").write_bytes(TABLE)
    folder = store.path("test/pair")
    assert folder == store.cache / "test/pair"
    assert (folder / "text.txt").read_bytes() == TEXT
    assert len(site.requests) == 1
    assert store.path("test/pair", "text.txt").parent == store.archive / "test/pair"


def test_changed_upstream_is_refused(store: Store, site):
    store.base = site.base
    (site.root / "some folder/text.txt").write_bytes(TEXT + b"edited")
    with pytest.raises(data.DataMissing, match="hash"):
        store.path("test/text")
    assert not (store.cache / "test/text/text.txt").exists()


def test_absent_upstream_names_the_address(store: Store, site):
    store.base = site.base
    with pytest.raises(data.DataMissing, match="404"):
        store.path("test/text")


def test_a_dead_host_is_asked_once(store: Store, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(data.DataMissing):
        store.path("test/text")
    monkeypatch.setattr("pooch.retrieve", lambda *a, **k: pytest.fail("asked again"))
    with pytest.raises(data.DataMissing, match="cannot be reached"):
        store.path("test/pair")


def test_unknown_names_propose_near_ones(store: Store):
    with pytest.raises(ValueError, match="did you mean.*test/text"):
        store.path("test/txt")
    with pytest.raises(ValueError, match="no file 'nothing.txt'; it has: text.txt"):
        store.path("test/text", "nothing.txt")


def test_alias_must_be_unique():
    with pytest.raises(ValueError, match="alias 'words' names both"):
        Registry(
            [
                dataset("test/one", copied(), aliases=("words",)),
                dataset("test/two", copied(), aliases=("words",)),
            ]
        )


@pytest.mark.parametrize(
    "change",
    [
        {"build": "none"},
        {"build": "gzip"},
        {"upstream": []},
        {"sha256": "abc"},
        {"bytes": 0},
        {"unknown": 1},
    ],
)
def test_bad_entries_are_refused(change: dict):
    with pytest.raises(ValueError):
        DataFile.model_validate(copied() | change)


def test_zip_is_judged_by_its_members(tmp_path: Path):
    sources = [("b.txt", tmp_path / "1"), ("a.txt", tmp_path / "2")]
    for name, path in sources:
        path.write_text(name)
    zip_files(sources, tmp_path / "one.zip")
    zip_files(sources[::-1], tmp_path / "two.zip")
    assert verify.content_sha256(tmp_path / "one.zip") == verify.content_sha256(
        tmp_path / "two.zip"
    )
    with zipfile.ZipFile(tmp_path / "two.zip", "a") as archive:
        archive.writestr("c.txt", "more")
    assert verify.content_sha256(tmp_path / "one.zip") != verify.content_sha256(
        tmp_path / "two.zip"
    )


def test_poems_become_records(tmp_path: Path):
    tang = [{"author": "李白", "title": "靜夜思", "paragraphs": ["牀前", "明月光。"], "id": "x"}]
    song = [{"author": "苏轼", "rhythmic": "水调歌头", "paragraphs": ["明月几时有。"]}]
    (tmp_path / "t").write_text(json.dumps(tang), encoding="utf-8")
    (tmp_path / "s").write_text(json.dumps(song), encoding="utf-8")
    names = ["全唐诗/poet.tang.0.json", "宋词/ci.song.0.json"]
    poems(list(zip(names, [tmp_path / "t", tmp_path / "s"])), tmp_path / "poems.jsonl.xz")
    lines = lzma.decompress((tmp_path / "poems.jsonl.xz").read_bytes()).decode().split("\n")
    assert [json.loads(line) for line in lines] == [
        {"k": "tang", "a": "李白", "t": "靜夜思", "p": "牀前明月光。"},
        {"k": "songci", "a": "苏轼", "t": "水调歌头", "p": "明月几时有。"},
    ]


# The registry that is shipped.


def test_registry_holds_what_the_topics_need():
    names = data.names()
    assert len(names) == len(set(names)) >= 40
    for alias, name in {
        "tinyshakespeare": "llm/tinyshakespeare",
        "chinese_poetry": "llm/chinese_poetry",
        "paddle_docs": "llm/paddle_docs_zh_en",
        "wikitext2": "llm/wikitext2",
        "stories260K": "weights/stories260K",
        "tiny_rwkv": "weights/tiny_rwkv",
        "tokenizers": "llm/tokenizers",
    }.items():
        assert data.describe(alias).name == name


@pytest.mark.parametrize("name", load().names())
def test_entry_is_complete(name: str):
    entry = data.describe(name)
    assert data.describe(name.split("/")[1]) is entry
    assert entry.bytes == sum(file.bytes for file in entry.files)
    assert len({file.name for file in entry.files}) == len(entry.files)
    for file in entry.files:
        for upstream in file.upstream:
            assert entry.url(upstream).startswith("https://raw.githubusercontent.com/")
            assert upstream.sha256 is not None or file.build == "poems"
        if file.build == "copy":
            assert file.upstream[0].sha256 == file.sha256
        if file.build == "gzip":
            assert file.upstream[0].sha256 == file.content_sha256


def test_archives_that_are_here_match():
    here = {name: status for name in data.names() if (status := data.status(name)).where}
    if not here:
        pytest.skip("no data set is here: OARLOCK_DATA is not set and the cache is empty")
    for name, status in here.items():
        assert "expected sha256" not in status.reason, status.reason
        for file in data.describe(name).files:
            path = status.where / file.name
            if path.exists() and file.content_sha256 is not None:
                assert verify.content_sha256(path) == file.content_sha256, path


@pytest.mark.parametrize(
    "name, part, start, characters",
    [
        ("tinyshakespeare", None, "First Citizen:\nBefore we proceed", 1_115_394),
        ("chinese_poetry", "tang", "帝京篇十首 一\n太宗皇帝\n秦川雄帝宅", 4_000_000),
        ("chinese_poetry", "songci", "导引\n和岘\n气和玉烛", 1_000_000),
        ("paddle_docs", "zh", "#", 5_000_000),
        ("wikitext2", "valid", " \n = Homarus gammarus = ", 1_100_000),
    ],
)
def test_corpora(name: str, part: str | None, start: str, characters: int):
    try:
        text = data.load_text(name, part=part, download=False)
    except data.DataMissing as error:
        pytest.skip(str(error).splitlines()[0])
    assert text.startswith(start)
    assert len(text) >= characters


def test_corpus_names_are_checked():
    with pytest.raises(ValueError, match="is no text; corpora are: llm/tinyshakespeare"):
        data.load_text("mnist")
    with pytest.raises(ValueError, match="no part 'train'; parts are: None, 'valid', 'test'"):
        data.load_text("wikitext2", part="train")


def test_substitute_says_what_it_is(store: Store, monkeypatch: pytest.MonkeyPatch):
    empty = Store(archive=None, cache=store.cache, base=store.base)
    monkeypatch.setattr(data, "_default", lambda: empty)
    text, origin = data.text_or_fallback("tinyshakespeare")
    assert len(text) >= fallback.MIN_CHARACTERS
    assert "manuals of Python" in origin and "NumPy" in origin and "sha256" in origin
    assert "substitute, because data set llm/tinyshakespeare: input.txt is not here" in origin


def test_substitute_is_the_same_every_time():
    first = fallback.library_text()
    fallback.library_text.cache_clear()
    assert fallback.library_text() == first
    text = first[0]
    assert sum(character.isascii() for character in text) > 0.99 * len(text)
    assert text.count(" the ") > 5000


def test_corrupt_corpus_is_not_replaced(store: Store, monkeypatch: pytest.MonkeyPatch):
    put(store.archive, "llm/tinyshakespeare/input.txt", b"First Citizen:")
    broken = Store(archive=store.archive, cache=store.cache, base=store.base)
    monkeypatch.setattr(data, "_default", lambda: broken)
    with pytest.raises(data.DataCorrupt):
        data.text_or_fallback("tinyshakespeare")


def test_archive_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OARLOCK_DATA", str(tmp_path))
    put(tmp_path, "llm/tinyshakespeare/input.txt", b"short")
    with pytest.raises(data.DataCorrupt, match="5 bytes instead of 1115394"):
        data.path("tinyshakespeare", "input.txt", download=False)
