"""Many structures labelled: cached, resumable, over processes, with every failure told."""

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from oarlock.sci_md.labels.cache import LabelCache, content_hash
from oarlock.sci_md.labels.method import LabelMethod
from oarlock.sci_md.structure import Structure


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """Args:
    index: of the structure among those given.
    name: the structure's.
    message: what the method said.
    """

    index: int
    name: str
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Labelled:
    """What came out of `generate`.

    Args:
        structures: those with labels, in the order given; failures are not among them.
        failures: the others.
        computed: how many were computed now.
        cached: how many were known, failures included.
    """

    structures: tuple[Structure, ...]
    failures: tuple[Failure, ...]
    computed: int
    cached: int

    def __str__(self) -> str:
        lines = [
            f"{len(self.structures)} labelled, {len(self.failures)} failed "
            f"({self.computed} computed now, {self.cached} from the cache)"
        ]
        lines += [
            f"  {one.name or f'structure {one.index}'}: {one.message}" for one in self.failures
        ]
        return "\n".join(lines)


def generate(
    structures: Sequence[Structure],
    method: LabelMethod,
    *,
    cache: str | Path,
    workers: int = 1,
    retry_failures: bool = False,
    progress: bool = True,
) -> Labelled:
    """Labels for every structure; whatever ends it, what was computed is in the cache.

    Args:
        cache: a folder; a second call, after an interruption or with more structures, computes only
            what is not there.
        workers: processes, each with one thread. With more than one, scripts have to keep their calls
            under ``if __name__ == "__main__":`` as for `multiprocessing`.
        retry_failures: compute again what failed before.
        progress: show a bar on a terminal.

    Raises:
        ValueError: nothing to do, no worker, or a worker process that died (out of memory).
    """
    if not structures:
        raise ValueError("structures is empty: give at least one")
    if workers < 1:
        raise ValueError(f"workers={workers} has to be 1 or more")
    method.version()  # says now whether the program is missing
    store = LabelCache(folder=Path(cache))
    keys = [content_hash(structure, method) for structure in structures]
    first_of = {key: index for index, key in reversed(list(enumerate(keys)))}
    known = {key: store.find(structures[index], key) for key, index in first_of.items()}
    missing = [
        index
        for key, index in sorted(first_of.items(), key=lambda pair: pair[1])
        if known[key] is None or (retry_failures and isinstance(known[key], str))
    ]
    with _bar(len(missing), method, shown=progress) as advance:
        for index, outcome in _compute(structures, missing, method, workers):
            known[keys[index]] = outcome
            if isinstance(outcome, str):
                store.keep_failure(outcome, keys[index])
            else:
                store.keep(outcome, keys[index])
            advance()
    labelled, failures = [], []
    for index, (structure, key) in enumerate(zip(structures, keys, strict=True)):
        result = known[key]
        assert result is not None
        if isinstance(result, str):
            failures.append(Failure(index=index, name=structure.name, message=result))
        else:
            labelled.append(_with_labels(structure, result))
    return Labelled(
        structures=tuple(labelled),
        failures=tuple(failures),
        computed=len(missing),
        cached=len(structures) - len(missing),
    )


def _with_labels(structure: Structure, labelled: Structure) -> Structure:
    return replace(
        structure, energy=labelled.energy, forces=labelled.forces, virial=labelled.virial
    )


def _label(method: LabelMethod, structure: Structure) -> Structure | str:
    try:
        return method.label(structure)
    except ValueError as error:
        return str(error)


def _one_thread() -> None:
    """Before the libraries are loaded: each process computes with one thread."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"


def _compute(
    structures: Sequence[Structure], missing: Sequence[int], method: LabelMethod, workers: int
) -> Iterator[tuple[int, Structure | str]]:
    if workers == 1 or len(missing) < 2:
        for index in missing:
            yield index, _label(method, structures[index])
        return
    waiting = list(reversed(missing))
    running: dict[Future[Structure | str], int] = {}
    pool = ProcessPoolExecutor(
        max_workers=workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_one_thread,
    )
    try:
        while waiting or running:
            while waiting and len(running) < 2 * workers:
                index = waiting.pop()
                running[pool.submit(_label, method, structures[index])] = index
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                index = running[future]
                outcome = future.result()
                del running[future]
                yield index, outcome
    except BrokenProcessPool as error:
        names = ", ".join(str(index) for index in sorted(running.values()))
        raise ValueError(
            f"a process that labels died (out of memory?) while structures {names} were computed: "
            "call again with fewer workers; what is done is in the cache"
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _bar(total: int, method: LabelMethod, *, shown: bool):  # type: ignore[no-untyped-def]
    if not shown or not total:
        yield lambda: None
        return
    columns = (
        TextColumn(f"labels ({method.kind})"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        task = progress.add_task("", total=total)
        yield lambda: progress.advance(task)
