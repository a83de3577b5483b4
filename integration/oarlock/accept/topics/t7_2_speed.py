"""Criterion 7.2: time of energies, forces and virials, against the libraries that people run potentials with."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from oarlock.accept.experiment import Evidence, Run, experiment

SIZES: Mapping[str, dict[str, Any]] = {
    "quick": {"atoms": (32,), "threads": (1,), "rounds": 2, "settle_s": 0.0},
    "full": {"atoms": (256, 864, 4000), "threads": (1, 2), "rounds": 8, "settle_s": 0.25},
}
CUTOFF, LONG_CUTOFF = 5.0, 6.0  #: Å, of message passing and of Deep Potentials
#: Sizes that DeePMD-kit proposes: embedding 25-50-100, axis 16, fitting 240 x 3.
DEEP: Mapping[str, Any] = {
    "quick": {"embedding": [8, 16], "axis": 4, "fitting": [24, 24]},
    "full": {"embedding": [25, 50, 100], "axis": 16, "fitting": [240, 240, 240]},
}
#: SchNetPack's, and so ours: features and layers.
GRAPHS = {"SchNet": (128, 3), "PaiNN": (64, 3)}
RADIAL = 20
#: Ours, and the irreducible representations of MACE that it is compared with.
EQUIVARIANT: Mapping[str, Any] = {"model": "equivariant", "elements": ["Cu"], "cutoff": CUTOFF}
MACE = ("64x0e", "128x0e + 128x1o")
MACE_ATOMS = 864  #: larger systems are left to ours: MACE takes a minute a call there
SAME = 1e-5  #: of the largest force, between forces in float32 and float64
PICO = 1e-10  #: likewise, between float64 forces of two libraries
LOOSE = 1e-4  #: likewise, between float32 forces of two libraries
TABLES = 1e-3  #: likewise, of tabulated networks


@experiment(
    "7.2.2",
    name="speed",
    tiers=("quick", "full"),
    title="Energies, forces and virials: DeePMD-kit, SchNetPack and MACE beside ours",
    minutes=30,
    peers=("deepmd", "schnetpack", "mace"),
)
def speed(run: Run) -> Iterator[Evidence]:
    """Potentials with the same parameters on the same copper with the same neighbours, in turns."""
    sizes = SIZES[run.tier]
    todo = [(atoms, threads) for threads in sizes["threads"] for atoms in sizes["atoms"]]
    with TemporaryDirectory() as name:
        for done, (atoms, threads) in enumerate(todo):
            run.progress(done, len(todo), f"{atoms} atoms, {threads} threads")
            yield from _deep(run, Path(name), atoms, threads)
            yield from _graphs(run, Path(name), atoms, threads)
            yield from _equivariant(run, Path(name), atoms, threads)


def _deep(run: Run, folder: Path, atoms: int, threads: int) -> Iterator[Evidence]:
    """Deep Potential against DeePMD-kit, plain and with tabulated embedding."""
    from oarlock.accept.dynamics import racing, systems

    case = systems.copper(atoms, LONG_CUTOFF, folder / f"deep-{atoms}.npz", seed=run.seed)
    for dtype in ("float64", "float32"):
        if run.tier == "quick" and dtype == "float32":
            continue
        config = {"model": "deep_potential", "elements": ["Cu"], "cutoff": LONG_CUTOFF}
        config |= {"smooth": 0.5, "dtype": dtype, "sel": [96], **DEEP[run.tier]}
        model, theirs = folder / f"deep-{dtype}.safetensors", folder / f"deep-{dtype}.dp"
        with ExitStack() as stack:
            ours = {
                how: stack.enter_context(racing.ours(threads)) for how in ("native", "compressed")
            }
            if not theirs.exists():
                ours["native"].call("make", config=config, path=str(model), seed=run.seed)
                ours["native"].call("to_deepmd", model=str(model), case=str(case), path=str(theirs))
            for how, worker in ours.items():
                worker.call("build", model=str(model), case=str(case), threads=threads, how=how)
            peers = {}
            kinds = (
                ("plain", "compressed", "eval") if dtype == "float64" else ("plain", "compressed")
            )
            for how in kinds:
                other = racing.peer(run, stack, "deepmd", threads)
                if other is None:
                    break
                other.call(
                    "build",
                    model=str(theirs),
                    case=str(case),
                    folder=str(folder),
                    threads=threads,
                    how=how,
                )
                peers[how] = other
            label = f"deep-potential-{dtype}"
            yield racing.agreement(f"{label}-tables", ours["native"], ours["compressed"], TABLES, run, atoms, threads,
                                   "our networks against our tables")  # fmt: skip
            if "plain" in peers and dtype == "float64":
                yield racing.agreement(f"{label}-same", peers["plain"], ours["native"], PICO, run, atoms, threads,
                                       "DeePMD-kit's forces against ours, same parameters")  # fmt: skip
            elif "plain" in peers:
                wide = stack.enter_context(racing.ours(threads))
                ours["native"].call(
                    "widen", model=str(model), path=str(folder / "wide.safetensors")
                )
                wide.call(
                    "build",
                    model=str(folder / "wide.safetensors"),
                    case=str(case),
                    threads=threads,
                    how="native",
                )
                theirs_off = racing.apart(wide, peers["plain"])
                yield racing.agreement(f"{label}-rounding", wide, ours["native"], SAME, run, atoms, threads,
                                       "float32 forces against float64 with the same parameters",
                                       notes=f"DeePMD-kit's float32 forces are {theirs_off:.1e} off.")  # fmt: skip
            pairs = [
                ("plain", "native", 1.0),
                ("compressed", "compressed", 1.0),
                ("eval", "native", None),
            ]
            timings = racing.race(
                {f"deepmd {how}": one for how, one in peers.items()}
                | {f"ours {how}": one for how, one in ours.items()},
                run,
                SIZES[run.tier],
            )
            for theirs_how, ours_how, target in pairs:
                if theirs_how in peers:
                    yield racing.faster(timings, f"{label}-{theirs_how}", f"deepmd {theirs_how}", f"ours {ours_how}",
                                        run, atoms, threads, target)  # fmt: skip
            if not peers:
                yield racing.faster(timings, f"{label}-compressed", "ours native", "ours compressed", run, atoms, threads, None)  # fmt: skip


def _graphs(run: Run, folder: Path, atoms: int, threads: int) -> Iterator[Evidence]:
    """SchNet and PaiNN against SchNetPack."""
    from oarlock.accept.dynamics import racing, systems

    case = systems.copper(atoms, CUTOFF, folder / f"graph-{atoms}.npz", seed=run.seed)
    for kind, (features, layers) in GRAPHS.items():
        with ExitStack() as stack:
            peer = racing.peer(run, stack, "schnetpack", threads)
            if peer is None:
                return
            ours = stack.enter_context(racing.ours(threads))
            state, model = folder / f"{kind}.npz", folder / f"{kind}.safetensors"
            peer.call(
                "make",
                kind=kind,
                features=features,
                layers=layers,
                radial=RADIAL,
                cutoff=CUTOFF,
                seed=run.seed,
                path=str(state),
            )
            peer.call("build", case=str(case), threads=threads)
            ours.call("from_schnetpack", state=str(state), path=str(model))
            ours.call("build", model=str(model), case=str(case), threads=threads, how="eager")
            label = kind.lower()
            yield racing.agreement(f"{label}-same", peer, ours, LOOSE, run, atoms, threads,
                                   "SchNetPack's forces against ours, same parameters")  # fmt: skip
            timings = racing.race({"schnetpack": peer, "ours": ours}, run, SIZES[run.tier])
            yield racing.faster(timings, label, "schnetpack", "ours", run, atoms, threads, 1.0)


def _equivariant(run: Run, folder: Path, atoms: int, threads: int) -> Iterator[Evidence]:
    """Our equivariant potential against two sizes of MACE; parameters differ, sizes are comparable."""
    from oarlock.accept.dynamics import racing, systems

    if atoms > MACE_ATOMS:
        return
    case = systems.copper(atoms, CUTOFF, folder / f"graph-{atoms}.npz", seed=run.seed)
    with ExitStack() as stack:
        ours = stack.enter_context(racing.ours(threads))
        model = folder / "equivariant.safetensors"
        ours.call("make", config=dict(EQUIVARIANT), path=str(model), seed=run.seed)
        ours.call("build", model=str(model), case=str(case), threads=threads, how="eager")
        arms = {"ours": ours}
        for hidden in MACE:
            worker = racing.peer(run, stack, "mace", threads)
            if worker is None:
                return
            worker.call(
                "build",
                case=str(case),
                threads=threads,
                hidden=hidden,
                cutoff=CUTOFF,
                neighbours=42.0,
                seed=run.seed,
            )
            arms[f"MACE {hidden}"] = worker
        timings = racing.race(arms, run, SIZES[run.tier])
        for hidden in MACE:
            name = "equivariant-mace-" + hidden.replace(" ", "").replace("+", "-")
            yield racing.faster(timings, name, f"MACE {hidden}", "ours", run, atoms, threads, 1.0)
