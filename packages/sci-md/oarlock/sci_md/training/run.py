"""A whole run of a configuration: data in, potentials, tables and pictures out."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from oarlock.sci_md.data import Dataset
from oarlock.sci_md.potentials import Potential, load
from oarlock.sci_md.training import plots
from oarlock.sci_md.training.config import Prepared, RunConfig, prepare
from oarlock.sci_md.training.metrics import Predictions, predict
from oarlock.sci_md.training.progress import Reporter, Silent
from oarlock.sci_md.training.trainer import CHECKPOINT, Outcome, Trainer


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Member:
    """One trained potential.

    Args:
        test: its predictions for the test structures; None without such.
    """

    folder: Path
    potential: Potential
    outcome: Outcome
    test: Predictions | None


def run(
    config: RunConfig,
    *,
    resume: bool = False,
    reporter: Callable[[], Reporter] = Silent,
    prepared: Prepared | None = None,
) -> list[Member]:
    """Trains the potential, or the committee, of a configuration.

    The output folder gets config.yaml and, for each member of a committee in a folder of its own,
    checkpoint, best and last potential, history.csv, pictures, and the table of test errors.

    Args:
        resume: go on with what is there; members that have not begun begin.
        reporter: makes what shows progress, one for each member.
        prepared: the data, if they are read already.

    Raises:
        ValueError: the folder holds a run and `resume` is not set, or the reverse; and as reading and training do.
    """
    output = Path(config.output)
    begun = any(output.glob(f"**/{CHECKPOINT}"))
    if begun and not resume:
        raise ValueError(
            f"output={str(output)!r} holds a run already: resume it, or choose another folder"
        )
    if resume and not begun:
        raise ValueError(
            f"output={str(output)!r} holds no run that could be resumed: leave resume out, or name the folder"
        )
    prepared = prepared or prepare(config, progress=reporter().say)
    output.mkdir(parents=True, exist_ok=True)
    (output / "config.yaml").write_text(
        yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    )
    members = []
    for index in range(config.committee):
        folder = output if config.committee == 1 else output / f"member-{index}"
        member = train_member(config, prepared, index, folder, resume=resume, reporter=reporter())
        members.append(member)
        if member.outcome.reason == "interrupted":
            break
    return members


def train_member(
    config: RunConfig,
    prepared: Prepared,
    index: int,
    folder: Path,
    *,
    resume: bool,
    reporter: Reporter,
) -> Member:
    """The committee's member of this index, whose seed is the configuration's and the index.

    `config.start` is where its parameters begin, if given; see `run`.
    """
    settings = config.training.model_copy(update={"seed": config.training.seed + index})
    potential = prepared.build(settings.seed)
    if config.start is not None:
        _begin_with(potential, config.start)
    trainer = Trainer(
        potential,
        prepared.train,
        settings,
        validation=prepared.validation,
        folder=folder,
        reporter=reporter,
    )
    if resume and (folder / CHECKPOINT).exists():
        trainer.resume()
    outcome = trainer.run()
    tested = None
    if prepared.test is not None and outcome.reason != "interrupted":
        tested = report(potential, prepared.test, folder, plot=settings.plots)
    return Member(folder=folder, potential=potential, outcome=outcome, test=tested)


def report(
    potential: Potential, dataset: Dataset, folder: Path, *, name: str = "test", plot: bool = True
) -> Predictions:
    """Writes NAME.md and NAME.json (errors) and, if asked to, NAME.png (parity)."""
    found = predict(potential, dataset)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.md").write_text(found.markdown())
    (folder / f"{name}.json").write_text(
        json.dumps({"structures": len(dataset), **found.errors()}, indent=1) + "\n"
    )
    if plot:
        plots.parity(found, folder / f"{name}.png", title=name)
    return found


def _begin_with(potential: Potential, path: str) -> None:
    other = load(path)
    mine, theirs = potential.state_dict(), other.state_dict()
    if other.elements != potential.elements or {k: list(v.shape) for k, v in mine.items()} != {
        k: list(v.shape) for k, v in theirs.items()
    }:
        raise ValueError(
            f"start={path!r} has other elements or sizes than the potential of the configuration: give "
            f"that potential's configuration ({other.config.to_dict()})"
        )
    for name, tensor in mine.items():
        tensor.set_value(theirs[name].astype(tensor.dtype))
