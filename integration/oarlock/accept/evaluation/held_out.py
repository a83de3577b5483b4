"""Text that the prepared models were not trained on, where the tasks' sources look for it."""

import gzip
import lzma
import re
from pathlib import Path

from oarlock.accept import data, prepare
from oarlock.llm.eval import Task, select
from oarlock.llm.eval.data import Finder

SHAKESPEARE, POEMS = "llm/tinyshakespeare", "llm/chinese_poetry"
WIKITEXT = "llm/wikitext2"
BITS = "shakespeare_bits"
LINES = "next_poem_line_easy"
ORDER = "next_sentence_hard"
PARAGRAPH, ARTICLE = 4, 5  #: sentences, and paragraphs of an article
CHOSEN, BEFORE = 120, 300  #: most characters of a sentence to choose, and of the two before
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"])")
_SPEAKER = re.compile(r"(?m)^[A-Z][A-Za-z ]+:\n")


def write(folder: Path, *, poems: bool) -> tuple[Finder, Finder]:
    """Write what `prepare` holds out of each corpus, and the Shakespeare it does not; give what finds either.

    Args:
        folder: to write to.
        poems: whether poems are needed, which take some seconds.
    """
    text = data.path(SHAKESPEARE, "input.txt").read_text(encoding="utf-8")
    for part, content in (
        ("held out", text[int(len(text) * (1 - _share())) :]),
        ("training", training_text()),
    ):
        place = folder / part / SHAKESPEARE
        place.mkdir(parents=True)
        (place / "input.txt").write_text(content, encoding="utf-8")
    place = folder / "held out" / WIKITEXT
    place.mkdir(parents=True)
    held = _articles(text[int(len(text) * (1 - _share())) :])
    (place / "test.txt.gz").write_bytes(gzip.compress(held.encode()))
    if poems:
        share = prepare.recipe("llama-poems-bpe").held_out
        with lzma.open(data.path(POEMS, "poems.jsonl.xz"), "rt", encoding="utf-8") as file:
            lines = file.readlines()
        kept = lines[int(len(lines) * (1 - share)) :]
        place = folder / "held out" / POEMS
        place.mkdir(parents=True)
        with lzma.open(place / "poems.jsonl.xz", "wt", encoding="utf-8", preset=0) as out:
            out.writelines(kept)
    return lambda name: folder / "held out" / name, lambda name: folder / "training" / name


def training_text() -> str:
    """The Shakespeare that the prepared models learn from."""
    text = data.path(SHAKESPEARE, "input.txt").read_text(encoding="utf-8")
    return text[: int(len(text) * (1 - _share()))]


def bits(items: int, characters: int) -> Task:
    """Bits per byte of Shakespeare."""
    [task] = select(BITS)
    return _with(task, items=items, characters=characters)


def next_sentence(items: int) -> Task:
    """Which of four sentences goes on a text of Shakespeare's, the wrong ones with two words exchanged."""
    [task] = select(ORDER)
    return _with(task, items=items)


def next_line(items: int) -> Task:
    """Which of four lines goes on a Song lyric; those held out are all lyrics."""
    [task] = select(LINES)
    return _with(task, items=items, part="songci")


def _articles(text: str) -> str:
    """Speeches without their speakers as articles of paragraphs, in WikiText's form.

    Paragraphs of long sentences are left out: models of `prepare` take 128 bytes at once.
    """
    sentences = _SENTENCE.split(" ".join(_SPEAKER.sub("", text).split()))
    paragraphs = []
    for i in range(0, len(sentences) - PARAGRAPH + 1, PARAGRAPH):
        part = sentences[i : i + PARAGRAPH]
        if len(" ".join(part[:2])) <= BEFORE and len(part[2]) <= CHOSEN:
            paragraphs.append(" ".join(part))
    return "\n".join(
        f" = Part {i // ARTICLE} = \n\n" + "\n".join(paragraphs[i : i + ARTICLE]) + "\n"
        for i in range(0, len(paragraphs), ARTICLE)
    )


def _share() -> float:
    return prepare.recipe("llama-shakespeare-bytes").held_out


def _with(task: Task, **options: object) -> Task:
    source = task.source.model_copy(update={"options": task.source.options | options})
    return task.model_copy(update={"source": source})
