"""Deep Potentials of water by one input file: trained here, and by DeePMD-kit's PyTorch backend."""

import json
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from oarlock.accept import peers
from oarlock.accept.dynamics import chain, deepmd_input
from oarlock.accept.dynamics.elements import for_peers
from oarlock.accept.experiment import Run
from oarlock.accept.workers import Worker

HELD_OUT = 40
NETWORK: Mapping[str, Any] = {"embedding": [10, 20, 40], "axis": 8, "fitting": [80, 80, 80]}


class Case:
    """One training of a seed.

    Args:
        folder: for data, input and what comes out.
        steps: of training.
        frames: how many are read; None for all.
    """

    def __init__(self, folder: Path, steps: int, frames: int | None, seed: int) -> None:
        self.folder, self.steps, self.frames, self.seed = folder, steps, frames, seed

    @cached_property
    def _input(self) -> dict[str, Any]:
        """Writes the systems; the input, with paths."""
        from oarlock.sci_md.data import write

        structures = chain.structures(self.frames)
        held = min(HELD_OUT, len(structures) // 2)
        order = np.random.default_rng(7).permutation(len(structures))
        self.folder.mkdir(parents=True, exist_ok=True)
        parts = {"training": order[held:], "test": order[:held]}
        for name, part in parts.items():
            write(self.folder / name, [structures[index] for index in part], format="deepmd")
        systems = {name: str(next((self.folder / name).iterdir())) for name in parts}
        for_peers([structures[index] for index in parts["test"]], chain.WATER.cutoff, self._test)
        given = deepmd_input.values(
            [systems["training"]],
            elements=chain.WATER.elements,
            sel=chain.WATER.sel,
            cutoff=chain.WATER.cutoff,
            smooth=chain.SMOOTH,
            network=NETWORK,
            rate=(2e-3, 1e-5),
            seed=self.seed,
        )
        return deepmd_input.with_steps(given, self.steps)

    @property
    def _test(self) -> Path:
        return self.folder / "test.npz"

    def ours(self) -> dict[str, float]:
        """Mean absolute errors: energy in meV/atom, forces in meV/Å."""
        given = self._input
        file = self.folder / "ours.json"
        file.write_text(json.dumps(given))
        with Worker.start(__name__, env={"OMP_NUM_THREADS": "1"}) as worker:
            return worker.call(
                "fit", file=str(file), test=str(self.folder / "test"), seed=self.seed
            )

    def theirs(self, run: Run) -> dict[str, float]:
        """Likewise; nothing where the peer is missing."""
        try:
            python = peers.python("deepmd")
        except peers.PeerMissing as missing:
            run.log(f"deepmd is left out: {missing}")
            return {}
        script = peers.scripts("deepmd") / "training.py"
        with Worker.start(script, env={"OMP_NUM_THREADS": "1"}, python=python) as worker:
            return worker.call(
                "train",
                values=self._input,
                test=str(self._test),
                folder=str(self.folder / "theirs"),
            )


def fit(*, file: str, test: str, seed: int) -> dict[str, float]:
    """Trains what an input of DeePMD-kit describes."""
    from oarlock.native.paddle import accelerate
    from oarlock.sci_md.data import Dataset, read
    from oarlock.sci_md.training import Trainer, predict, prepare
    from oarlock.sci_md.training.deepmd_input import read_deepmd_input

    accelerate(threads=1)
    config, _ = read_deepmd_input(file)
    config = config.model_copy(
        update={"training": config.training.model_copy(update={"seed": seed, "plots": False})}
    )
    prepared = prepare(config)
    potential = prepared.build(seed)
    begin = time.process_time()
    outcome = Trainer(potential, prepared.train, config.training).run()
    spent = time.process_time() - begin
    held = Dataset(read(test), elements=potential.elements, cutoff=potential.cutoff)
    found = predict(potential, held)
    return {
        "steps": outcome.step,
        "seconds": spent,
        "energy": 1e3 * found.energy.mae,
        "forces": 1e3 * found.forces.mae,
    }
