"""Criterion 7.2.2: time of a step of training by energies and forces, against PyTorch's libraries."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from oarlock.accept.experiment import Evidence, Run, experiment
from oarlock.accept.workers import Worker

SIZES: Mapping[str, dict[str, Any]] = {
    "quick": {"structures": 1, "threads": (1,), "rounds": 2, "settle_s": 0.0},
    "full": {"structures": 4, "threads": (1, 2), "rounds": 10, "settle_s": 0.25},
}
ELEMENT, CUTOFF, RADIAL, NEIGHBOURS = "Mo", 5.0, 20, 33.0
#: SchNetPack's kind, features and layers.
GRAPHS = (("SchNet", 64, 3), ("SchNet", 128, 3), ("PaiNN", 64, 3))
#: Ours, and the irreducible representations of MACE that it is compared with.
EQUIVARIANT: Mapping[str, Any] = {
    "model": "equivariant",
    "cutoff": CUTOFF,
    "neighbours": NEIGHBOURS,
}
MACE = ("64x0e", "64x0e + 64x1o")
OPTIONS: Mapping[str, float] = {"rate": 1e-4, "energy_weight": 10.0}
SAME = 1e-3  #: relative, between first losses in float32
WORDS: Mapping[str, str] = {
    "work": "a step of training by energies and forces",
    "system": ELEMENT,
    "remark": "Forces, their gradient, Adam; ours includes making the batch and the average of parameters.",
}


@experiment(
    "7.2.2",
    name="training-step",
    tiers=("quick", "full"),
    title="Steps of training: SchNetPack, PyTorch's own operators and MACE beside ours",
    minutes=15,
    peers=("schnetpack", "torch", "mace"),
)
def training_step(run: Run) -> Iterator[Evidence]:
    """The same batch of the published training structures, loss and optimizer, in turns; where sizes and
    parameters are the same, the first loss is compared."""
    from oarlock.accept import data
    from oarlock.accept.dynamics import racing

    data.path("md/mlearn", "mlearn.zip")  # missing data are told here, not by a worker
    sizes = SIZES[run.tier]
    with TemporaryDirectory() as name:
        folder = Path(name)
        batch = folder / "batch.npz"
        with racing.ours(1, "stepping") as worker:
            size = worker.call(
                "write_batch",
                element=ELEMENT,
                count=sizes["structures"],
                cutoff=CUTOFF,
                path=str(batch),
            )
        kinds = (*GRAPHS, None) if run.tier == "full" else GRAPHS[:1]
        todo = [(threads, kind) for threads in sizes["threads"] for kind in kinds]
        for done, (threads, kind) in enumerate(todo):
            words = "equivariant" if kind is None else f"{kind[0]} {kind[1]}"
            run.progress(done, len(todo), f"{words}, {threads} threads, {size['edges']} edges")
            if kind is None:
                yield from _equivariant(run, batch, size["atoms"], threads)
            else:
                yield from _graph(run, folder, batch, *kind, size["atoms"], threads)


def _ours(run: Run, threads: int, **arguments: Any) -> Worker:
    from oarlock.accept.dynamics import racing

    worker = racing.ours(threads, "stepping")
    count = SIZES[run.tier]["structures"]
    worker.call("build", element=ELEMENT, count=count, threads=threads, seed=run.seed,
                **arguments, **OPTIONS)  # fmt: skip
    return worker


def _graph(
    run: Run,
    folder: Path,
    batch: Path,
    kind: str,
    features: int,
    layers: int,
    atoms: int,
    threads: int,
) -> Iterator[Evidence]:
    """SchNet or PaiNN with the parameters of SchNetPack, and SchNet with PyTorch's operators alone."""
    from oarlock.accept.dynamics import racing

    shape = {"features": features, "layers": layers, "radial": RADIAL, "cutoff": CUTOFF}
    theirs, mine = folder / f"{kind}-{features}-theirs.npz", folder / f"{kind}-{features}-ours.npz"
    label = f"step-{kind.lower()}-{features}"
    with ExitStack() as stack:
        peers = {}
        worker = racing.peer(run, stack, "schnetpack", threads, "training")
        if worker is None:
            if run.tier == "quick":
                config = {"model": kind.lower(), **shape, "features": 16}
                ours = stack.enter_context(_ours(run, threads, config=config))
                yield _learns(run, ours, label, atoms)
            return
        worker.call("build", batch=str(batch), kind=kind, **shape, threads=threads, seed=run.seed,
                    path=str(theirs), **OPTIONS)  # fmt: skip
        peers["SchNetPack"] = worker
        ours = stack.enter_context(_ours(run, threads, schnetpack=str(theirs), path=str(mine)))
        if kind == "SchNet":
            plain = racing.peer(run, stack, "torch", threads, "schnet")
            if plain is not None:
                plain.call("build", batch=str(batch), state=str(mine), **shape, threads=threads,
                           **OPTIONS)  # fmt: skip
                peers["PyTorch"] = plain
        first = ours.call("step")["loss"]
        for name, one in peers.items():
            error = abs(one.call("step")["loss"] - first) / abs(first)
            words = f"{kind}: first loss of {name} against ours from the same parameters, relative"
            label_of_loss = f"{label}-{name.lower()}-loss-{threads}t"
            yield racing.within(label_of_loss, words, error, SAME, run)
        timings = racing.race({**peers, f"our {kind} {features}": ours}, run, SIZES[run.tier])
        for name in peers:
            yield racing.faster(timings, f"{label}-{name.lower()}", name, f"our {kind} {features}", run, atoms,
                                threads, 1.0, **WORDS)  # fmt: skip


def _equivariant(run: Run, batch: Path, atoms: int, threads: int) -> Iterator[Evidence]:
    """Ours against two sizes of MACE; parameters differ."""
    from oarlock.accept.dynamics import racing

    with ExitStack() as stack:
        ours = stack.enter_context(_ours(run, threads, config=dict(EQUIVARIANT)))
        peers = {}
        for hidden in MACE:
            worker = racing.peer(run, stack, "mace", threads, "training")
            if worker is None:
                break
            worker.call("build", batch=str(batch), hidden=hidden, cutoff=CUTOFF, neighbours=NEIGHBOURS,
                        threads=threads, seed=run.seed, **OPTIONS)  # fmt: skip
            peers[f"MACE {hidden}"] = worker
        if not peers:
            return
        timings = racing.race({**peers, "our equivariant": ours}, run, SIZES[run.tier])
        for name in peers:
            label = "step-" + name.lower().replace(" + ", "-").replace(" ", "-")
            yield racing.faster(timings, label, name, "our equivariant", run, atoms, threads, 1.0,
                                **WORDS)  # fmt: skip


def _learns(run: Run, ours: Worker, name: str, atoms: int) -> Evidence:
    """Without peers, in the quick tier: the loss of the batch falls."""
    losses = [ours.call("step")["loss"] for _ in range(8)]
    return Evidence(
        name=f"{name}-falls",
        metric=f"loss of one batch of {atoms} atoms after {len(losses) - 1} steps",
        unit="eV²/Å²",
        direction="lower",
        baseline=losses[0],
        baseline_name="loss before them",
        ours=losses[-1],
        target=1.0,
        seeds=[run.seed],
        level="measured",
    )
