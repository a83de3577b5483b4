"""DeePMD-kit's ``input.json`` (model ``se_e2_a``, loss ``ener``) as a training run of this package.

What cannot be done is refused by name; what has no effect here is told in notes.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from oarlock.sci_md.training.config import RunConfig

#: Keys that change nothing here, wherever they are.
WITHOUT_EFFECT = frozenset(
    {
        "_comment", "disp_file", "disp_training", "time_training", "profiling", "profiling_file",
        "save_ckpt", "max_ckpt_keep", "tensorboard", "tensorboard_log_dir", "tensorboard_freq",
        "numb_btch", "stat_file", "enable_profiler", "disp_avg", "nvnmd", "seed", "auto_prob",
        "auto_prob_style", "data_stat_nbatch", "data_stat_protect",
    }
)  # fmt: skip
#: Of those, the ones that nobody expects an effect of.
UNREMARKABLE = frozenset({"_comment", "disp_file", "disp_training", "time_training", "seed"})
STEPS = ("numb_steps", "num_steps", "num_step", "numb_step", "stop_batch")


class _Section:
    """One object of the file, whose keys are taken out as they are understood."""

    def __init__(self, values: Any, path: str, notes: list[str]) -> None:
        if not isinstance(values, Mapping):
            raise ValueError(f"{path} has to be an object, not {values!r}")
        self._values, self._path, self._notes = dict(values), path, notes

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def take(self, key: str, default: Any = None) -> Any:
        return self._values.pop(key, default)

    def section(self, key: str) -> "_Section":
        if key not in self._values:
            raise ValueError(f"{self._path}.{key} is missing")
        return _Section(self._values.pop(key), f"{self._path}.{key}".removeprefix("."), self._notes)

    def only(self, key: str, *allowed: Any) -> None:
        """Refuses other values than these, of which the first is what a missing key means."""
        value = self._values.pop(key, allowed[0])
        if value not in allowed:
            told = ", ".join(repr(one) for one in allowed)
            raise ValueError(
                f"{self._path}.{key}={value!r} cannot be done here: use {told}, or train with dp"
            )

    def done(self) -> None:
        """Refuses keys that are left and notes those without effect."""
        unknown = sorted(set(self._values) - WITHOUT_EFFECT)
        if unknown:
            raise ValueError(
                f"{self._path or 'the input'} has {', '.join(unknown)}, which are not known here: "
                "remove them, or train with dp"
            )
        for key in sorted(set(self._values) - UNREMARKABLE):
            self._notes.append(f"{self._path}.{key} has no effect here")


def from_deepmd(values: Mapping[str, Any]) -> tuple[RunConfig, list[str]]:
    """The run that an input of DeePMD-kit describes, and notes on what differs.

    Raises:
        ValueError: an unknown key, or something that this package does not do.
    """
    notes: list[str] = []
    top = _Section(values, "", notes)
    training = top.section("training")
    steps = _steps(training)
    data, batch = _data(training, notes)
    run = {
        "potential": _model(top.section("model")),
        "data": data,
        "training": {
            "steps": steps,
            "batch": batch,
            "learning_rate": _learning_rate(top.section("learning_rate"), steps),
            "loss": _loss(top.section("loss")),
            "scale": None,
            **_rest(training),
        },
        "output": "run",
    }
    training.done()
    top.done()
    return RunConfig.read(run, where="input.json"), notes


def read_deepmd_input(path: str | Path) -> tuple[RunConfig, list[str]]:
    """From a file; paths in it begin at its folder."""
    path = Path(path)
    try:
        values = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no JSON ({error})") from error
    config, notes = from_deepmd(values)
    return config.within(path.parent), notes


def is_deepmd(values: Any) -> bool:
    """Whether a file's content is an input of DeePMD-kit."""
    model = values.get("model") if isinstance(values, Mapping) else None
    return isinstance(model, Mapping) and ("descriptor" in model or "type_map" in model)


def _model(model: _Section) -> dict[str, Any]:
    elements = model.take("type_map")
    if not elements:
        raise ValueError("model.type_map is missing: give the symbol of each type")
    model.only("type", "standard")
    descriptor, fitting = model.section("descriptor"), model.section("fitting_net")
    model.done()
    descriptor.only("type", "se_e2_a", "se_a")
    descriptor.only("activation_function", "tanh")
    descriptor.only("set_davg_zero", False)
    descriptor.only("exclude_types", [])
    descriptor.only("env_protection", 0.0)
    descriptor.only("trainable", True)
    precision = descriptor.take("precision", "default")
    sel = descriptor.take("sel", "auto")
    potential = {
        "model": "deep_potential",
        "elements": elements,
        "cutoff": descriptor.take("rcut", 6.0),
        "smooth": descriptor.take("rcut_smth", 0.5),
        "embedding": descriptor.take("neuron", [10, 20, 40]),
        "axis": descriptor.take("axis_neuron", 4),
        "one_side": descriptor.take("type_one_side", False),
        "embedding_timestep": descriptor.take("resnet_dt", False),
        "sel": [] if isinstance(sel, str) else sel,
    }
    descriptor.done()
    fitting.only("type", "ener")
    fitting.only("activation_function", "tanh")
    fitting.only("numb_fparam", 0)
    fitting.only("numb_aparam", 0)
    fitting.only("rcond", None)
    fitting.only("atom_ener", [])
    fitting.only("trainable", True)
    if fitting.take("precision", precision) != precision:
        raise ValueError("model.fitting_net.precision has to be that of the descriptor")
    potential["fitting"] = fitting.take("neuron", [240, 240, 240])
    potential["fitting_timestep"] = fitting.take("resnet_dt", True)
    fitting.done()
    kinds = {"default": "float64", "float64": "float64", "float32": "float32"}
    if precision not in kinds:
        raise ValueError(f"model.descriptor.precision={precision!r}: use float64 or float32")
    return {**potential, "dtype": kinds[precision]}


def _steps(training: _Section) -> int:
    given = [value for name in STEPS if (value := training.take(name)) is not None]
    if len(given) != 1:
        raise ValueError("training.numb_steps has to be given, once (numb_epoch is not known here)")
    return int(given[0])


def _learning_rate(rate: _Section, steps: int) -> dict[str, Any]:
    """lr = start · rate^⌊step / decay_steps⌋ with rate = (stop / start)^(decay_steps / steps)."""
    rate.only("type", "exp")
    start = float(rate.take("start_lr", 1e-3))
    stop = float(rate.take("stop_lr", 1e-8))
    every = int(rate.take("decay_steps", 5000))
    if every >= steps:  # as DeePMD-kit does
        every = 100 if steps // 10 > 100 else steps // 100 + 1
    factor = rate.take("decay_rate")
    if factor is not None:
        stop = start * float(factor) ** (steps / every)
    smooth = rate.take("smooth", False)
    rate.only("scale_by_worker", "linear", "sqrt", "none")
    warm_up = int(rate.take("warmup_steps", 0))
    rate.done()
    return {
        "kind": "exponential",
        "start": start,
        "stop": stop,
        "every": None if smooth else every,
        "warm_up": warm_up,
    }


def _loss(section: _Section) -> dict[str, Any]:
    section.only("type", "ener")
    defaults = {"e": ("energy", 0.02, 1.0), "f": ("forces", 1000.0, 1.0), "v": ("virial", 0.0, 0.0)}
    terms: dict[str, Any] = {
        name: {
            "start": float(section.take(f"start_pref_{letter}", start)),
            "limit": float(section.take(f"limit_pref_{letter}", limit)),
        }
        for letter, (name, start, limit) in defaults.items()
    }
    for other in ("h", "ae", "pf", "gf"):
        section.only(f"start_pref_{other}", 0.0, 0)
        section.only(f"limit_pref_{other}", 0.0, 0)
    section.only("relative_f", None)
    section.only("enable_atom_ener_coeff", False)
    section.only("loss_func", "mse")
    section.only("use_huber", False)
    section.take("huber_delta")
    intensive = section.take("intensive_ener_virial", False)
    section.done()
    return {**terms, "normalise": "atom" if intensive else "deepmd"}


def _data(training: _Section, notes: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sources, and the size of batches."""
    data: dict[str, Any] = {"validation": None}
    batch: Any = None
    for name, part in (("training_data", "train"), ("validation_data", "validation")):
        if part == "validation" and name not in training:
            continue
        section = training.section(name)
        systems = section.take("systems")
        systems = [systems] if isinstance(systems, str) else systems
        if not systems:
            raise ValueError(f"training.{name}.systems is missing: name folders of systems")
        data[part] = [{"source": one, "format": "deepmd"} for one in systems]
        size = section.take("batch_size", "auto")
        if part == "train":
            batch = _batch(size, notes)
        section.only("rglob_patterns", None)
        section.only("sys_probs", None)
        section.only("min_pair_dist", 0.0, None)
        section.done()
    notes.append(
        "each pass over the data takes every structure once; DeePMD-kit draws batches of systems"
    )
    return data, batch


def _batch(given: Any, notes: list[str]) -> dict[str, Any]:
    if isinstance(given, list) and len(set(given)) == 1:
        given = given[0]
    if isinstance(given, int):
        return {"structures": given}
    if isinstance(given, str):
        word, _, number = given.partition(":")
        if word == "max" and number.isdigit():
            return {"atoms": int(number)}
        if word == "auto" and (number.isdigit() or not number):
            limit = int(number or 32)
            notes.append(
                f"batch_size={given!r}: a batch has at most {limit} atoms (or one larger structure) "
                "here, at least as many in DeePMD-kit"
            )
            return {"atoms": limit}
    raise ValueError(
        f"training.training_data.batch_size={given!r} is not known here: a number, 'auto', 'auto:N' or "
        "'max:N'"
    )


def _rest(training: _Section) -> dict[str, Any]:
    seed = training.take("seed", None)
    save = int(training.take("save_freq", 1000))
    validate = int(training.take("disp_freq", 1000))
    clip = float(training.take("gradient_max_norm", 0.0))
    average = training.take("enable_ema", False)
    decay = float(training.take("ema_decay", 0.999))
    training.only("opt_type", "Adam")
    training.only("mixed_precision", None)
    training.only("change_bias_after_training", False)
    training.only("acc_freq", 1)
    return {
        "seed": int(seed or 0),
        "validate_every": validate,
        "checkpoint_every": save,
        "clip": clip or None,
        "ema": decay if average else None,
    }
