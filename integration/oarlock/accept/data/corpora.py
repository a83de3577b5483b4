"""The data sets that are text, as lists of documents."""

import gzip
import json
import lzma
from collections.abc import Iterator

from oarlock.accept.data.store import Store

#: Corpus -> the parts it can be asked for; None stands for all of it.
PARTS: dict[str, tuple[str | None, ...]] = {
    "llm/tinyshakespeare": (None,),
    "llm/chinese_poetry": (None, "tang", "songci"),
    "llm/paddle_docs_zh_en": (None, "zh", "en"),
    "llm/wikitext2": (None, "valid", "test"),
}


def documents(store: Store, name: str, *, part: str | None, download: bool) -> list[str]:
    """The documents of a corpus, in a fixed order.

    Raises:
        ValueError: the data set is no corpus, or has no such part.
    """
    dataset = store.registry.get(name)
    if dataset.name not in PARTS:
        raise ValueError(f"data set {dataset.name} is no text; corpora are: {', '.join(PARTS)}")
    if part not in PARTS[dataset.name]:
        known = ", ".join(repr(one) for one in PARTS[dataset.name])
        raise ValueError(f"{dataset.name} has no part {part!r}; parts are: {known}")

    def file(file_name: str):
        return store.path(dataset.name, file_name, download=download)

    match dataset.name:
        case "llm/tinyshakespeare":
            return [file("input.txt").read_text(encoding="utf-8")]
        case "llm/chinese_poetry":
            poems = _records(file("poems.jsonl.xz"))
            return [
                f"{poem['t']}\n{poem['a']}\n{poem['p']}"
                for poem in poems
                if part in (None, poem["k"])
            ]
        case "llm/paddle_docs_zh_en":
            records = _records(file("docs.jsonl.xz"))
            return [record["text"] for record in records if part in (None, record["lang"])]
        case "llm/wikitext2":
            wanted = ("valid", "test") if part is None else (part,)
            return [gzip.decompress(file(f"{p}.txt.gz").read_bytes()).decode() for p in wanted]
    raise AssertionError(f"{dataset.name} has parts but no reader")


def _records(path) -> Iterator[dict]:
    with lzma.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)
