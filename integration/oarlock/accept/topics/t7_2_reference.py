"""Criterion 7.2.2: our potentials learn as well as their reference implementations do, step for step."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

from oarlock.accept.experiment import Evidence, Run, experiment

#: Steps of graph networks, of SphereNet and of Deep Potentials; frames of the molecule, at each temperature.
SIZES: Mapping[str, dict[str, Any]] = {
    "quick": {"steps": 40, "sphere_steps": 0, "deep_steps": 0, "seeds": 1, "peers": False},
    "full": {
        "steps": 800,
        "sphere_steps": 600,
        "deep_steps": 1500,
        "seeds": 3,
        "peers": True,
        "molecules": 300,
    },
}
ELEMENT, CUTOFF, RADIAL = "Mo", 5.0, 20
#: Kind of SchNetPack, ours, features, layers and learning rate of both.
GRAPHS = {"SchNet": ("schnet", 64, 3, 2e-3), "PaiNN": ("painn", 64, 3, 2e-3)}
RECIPE = {"batch": 4, "energy_weight": 10.0, "decay": 0.99, "seconds": None}
#: Of both; torsions count from a mean direction by default, and from the nearest neighbour as published.
SPHERE: Mapping[str, Any] = {
    "layers": 3,
    "features": 64,
    "triplet_features": 32,
    "readout_features": 128,
    "spherical": 3,
    "radial": 6,
    "cutoff": CUTOFF,
}
SPHERES = {"SphereNet": "mean", "SphereNet as published": "nearest"}
SPHERE_RECIPE = {**RECIPE, "batch": 8, "rate": 1e-3}
WITHIN = 1 / 1.1  #: the reference's error by ours: at most a tenth more


@experiment(
    "7.2.2",
    name="reference",
    tiers=("quick", "full"),
    title="SchNet, PaiNN, SphereNet and Deep Potential against SchNetPack, DIG and DeePMD-kit, the same steps",
    minutes=30,
    peers=("schnetpack", "deepmd", "dig"),
)
def reference(run: Run) -> Iterator[Evidence]:
    """The same data, sizes, loss, optimizer, schedule and number of steps; parameters begin by each library's
    own rules. DIG has no periodic boxes: SphereNets learn a molecule."""
    from oarlock.accept import data
    from oarlock.accept.dynamics import deep_training, trained

    data.path("md/mlearn", "mlearn.zip")  # missing data are told here, not by a worker
    if SIZES[run.tier]["peers"]:
        data.path("md/deepmd_water", "water_data.zip")
    sizes = SIZES[run.tier]
    seeds = [run.seed + index for index in range(sizes["seeds"])]
    jobs: dict[tuple[str, str, int], Callable[[], dict[str, float]]] = {}
    with TemporaryDirectory() as name:
        files = trained.sets(ELEMENT, CUTOFF, Path(name)) if sizes["peers"] else {}
        if sizes["peers"]:
            molecules = trained.ethanol(CUTOFF, Path(name), sizes["molecules"], run.seed)
        for seed in seeds:
            for kind, (model, features, layers, rate) in GRAPHS.items():
                features = features if sizes["peers"] else 16
                recipe = {**RECIPE, "steps": sizes["steps"], "rate": rate}
                shape = {"features": features, "layers": layers, "radial": RADIAL, "cutoff": CUTOFF}
                jobs[kind, "ours", seed] = _ours(ELEMENT, {"model": model, **shape}, recipe, seed)
                if sizes["peers"]:
                    jobs[kind, "theirs", seed] = _schnetpack(run, files, kind, shape, recipe, seed)
            if not sizes["peers"]:
                continue
            recipe = {**SPHERE_RECIPE, "steps": sizes["sphere_steps"]}
            for kind, torsion in SPHERES.items():
                config = {"model": "spherenet", "torsion": torsion, **SPHERE}
                jobs[kind, "ours", seed] = _ours(molecules, config, recipe, seed)
            jobs["SphereNet", "theirs", seed] = _dig(run, molecules, recipe, seed)
            folder = Path(name) / f"deep-{seed}"
            system = deep_training.Case(folder, sizes["deep_steps"], None, seed)
            jobs["Deep Potential", "ours", seed] = system.ours
            jobs["Deep Potential", "theirs", seed] = lambda system=system: system.theirs(run)  # type: ignore[misc]
        found: dict[tuple[str, str, int], dict[str, float]] = {}
        with ThreadPoolExecutor(1 if run.tier == "quick" else 2) as pool:
            waiting = {
                key: pool.submit(run.remember, ["reference", *key, sizes], job)
                for key, job in jobs.items()
            }
            for done, (key, future) in enumerate(waiting.items()):
                found[key] = future.result()
                run.progress(done + 1, len(jobs), " ".join(map(str, key)))
    for kind in dict.fromkeys(key[0] for key in found):
        yield _compared(run, kind, found, seeds)


def _ours(
    data: str | Mapping[str, str], config: Mapping[str, Any], recipe: Mapping[str, Any], seed: int
) -> Callable[[], dict[str, float]]:
    from oarlock.accept.dynamics import trained

    return lambda: trained.ours(data, config, recipe, seed)


def _dig(
    run: Run, files: Mapping[str, str], recipe: Mapping[str, Any], seed: int
) -> Callable[[], dict[str, float]]:
    from oarlock.accept.dynamics import trained

    return lambda: trained.dig(run, files, SPHERE, recipe, seed)


def _schnetpack(
    run: Run,
    files: Mapping[str, str],
    kind: str,
    shape: Mapping[str, Any],
    recipe: Mapping[str, Any],
    seed: int,
) -> Callable[[], dict[str, float]]:
    from oarlock.accept.dynamics import trained

    return lambda: trained.schnetpack(run, files, kind, shape, recipe, seed)


def _compared(
    run: Run, kind: str, found: Mapping[tuple[str, str, int], Mapping[str, float]], seeds: list[int]
) -> Evidence:
    from oarlock.accept.measure.stats import bootstrap_ratio

    mine = [found[kind, "ours", seed]["forces"] for seed in seeds]
    theirs = [
        one["forces"]
        for seed in seeds
        if (one := found.get((kind.removesuffix(" as published"), "theirs", seed)))
    ]
    notes = "; ".join(
        f"{whose} {seed}: {one['forces']:.1f} meV/Å, {one['energy']:.2f} meV/atom, {one['steps']:.0f} steps in"
        f" {one['seconds']:.0f} s"
        for (name, whose, seed), one in found.items()
        if one and (name == kind or (whose == "theirs" and kind.startswith(f"{name} as")))
    )
    ratio, baseline, words, target = None, None, "", None
    if len(theirs) > 1:
        ratio = bootstrap_ratio(theirs, mine, paired=False, statistic="mean")
        baseline, target = mean(theirs), WITHIN
    elif run.tier == "quick":
        baseline, words, target = found[kind, "ours", seeds[0]]["zero"], "forces of zero", 1.0
    sphere = kind in SPHERES
    names = {"Deep Potential": "DeePMD-kit 3.2.0, PyTorch", **dict.fromkeys(SPHERES, "DIG 1.1.0")}
    data = "water" if kind == "Deep Potential" else "ethanol (GFN2-xTB)" if sphere else ELEMENT
    return Evidence(
        name=f"reference-{kind.lower().replace(' ', '-')}",
        metric=f"{kind} on {data}: mean absolute error of forces on structures held out, after equal steps",
        unit="meV/Å",
        direction="lower",
        baseline=baseline,
        baseline_name=words or names.get(kind, "SchNetPack 2.1.1"),
        ours=mean(mine),
        ratio=ratio.value if ratio else None,
        ci=ratio.ci if ratio else None,
        n=len(mine),
        seeds=seeds,
        target=target,
        judged=target is not None,
        level="measured",
        notes=notes,
    )
