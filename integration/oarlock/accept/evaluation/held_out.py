"""Text that the prepared models were not trained on, where the tasks' sources look for it."""

import json
import lzma
from collections.abc import Callable
from pathlib import Path

from oarlock.accept import data, prepare
from oarlock.llm.eval import Task, select

SHAKESPEARE, POEMS = "llm/tinyshakespeare", "llm/chinese_poetry"
#: Of each task's items: how many, and the text's own part for lines of poems.
BITS = "shakespeare_bits"
LINES = "next_poem_line_easy"


def write(folder: Path, *, poems: bool) -> Callable[[str], Path]:
    """Write the last part of each corpus, which `prepare` holds out, and give what finds it.

    Args:
        folder: to write to.
        poems: whether poems are needed, which take some seconds.
    """
    share = prepare.recipe("llama-shakespeare-bytes").held_out
    text = data.path(SHAKESPEARE, "input.txt").read_text(encoding="utf-8")
    place = folder / SHAKESPEARE
    place.mkdir(parents=True)
    (place / "input.txt").write_text(text[int(len(text) * (1 - share)) :], encoding="utf-8")
    if poems:
        share = prepare.recipe("llama-poems-bpe").held_out
        with lzma.open(data.path(POEMS, "poems.jsonl.xz"), "rt", encoding="utf-8") as file:
            lines = file.readlines()
        kept = lines[int(len(lines) * (1 - share)) :]
        place = folder / POEMS
        place.mkdir(parents=True)
        with lzma.open(place / "poems.jsonl.xz", "wt", encoding="utf-8", preset=0) as out:
            out.writelines(kept)
    return lambda name: folder / name


def training_text(characters: int) -> str:
    """The beginning of the Shakespeare that the prepared models learn from."""
    return data.path(SHAKESPEARE, "input.txt").read_text(encoding="utf-8")[:characters]


def bits(items: int, characters: int) -> Task:
    """Bits per byte of Shakespeare."""
    [task] = select(BITS)
    return _with(task, items=items, characters=characters)


def next_line(items: int) -> Task:
    """Which of four lines goes on a Song lyric; those held out are all lyrics."""
    [task] = select(LINES)
    return _with(task, items=items, part="songci")


def _with(task: Task, **options: object) -> Task:
    source = task.source.model_copy(update={"options": task.source.options | options})
    return task.model_copy(update={"source": source})


def parts_of_poems() -> set[str]:
    """Kinds of the poems that are held out."""
    share = prepare.recipe("llama-poems-bpe").held_out
    with lzma.open(data.path(POEMS, "poems.jsonl.xz"), "rt", encoding="utf-8") as file:
        lines = file.readlines()
    return {json.loads(line)["k"] for line in lines[int(len(lines) * (1 - share)) :]}
