"""Text that the prepared models were not trained on, where the tasks' sources look for it."""

import lzma
from pathlib import Path

from oarlock.accept import data, prepare
from oarlock.llm.eval import Task, select
from oarlock.llm.eval.data import Finder

SHAKESPEARE, POEMS = "llm/tinyshakespeare", "llm/chinese_poetry"
BITS = "shakespeare_bits"
LINES = "next_poem_line_easy"


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


def next_line(items: int) -> Task:
    """Which of four lines goes on a Song lyric; those held out are all lyrics."""
    [task] = select(LINES)
    return _with(task, items=items, part="songci")


def _share() -> float:
    return prepare.recipe("llama-shakespeare-bytes").held_out


def _with(task: Task, **options: object) -> Task:
    source = task.source.model_copy(update={"options": task.source.options | options})
    return task.model_copy(update={"source": source})
