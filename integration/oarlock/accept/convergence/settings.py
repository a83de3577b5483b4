"""What is trained for criterion 1.1, and the settings that the sweep found for each optimiser.

`python -m oarlock.accept.convergence.sweep --tier full --task gpt` repeats the search; its records
are committed beside the evidence, and a test holds the settings here against them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

DATA = "llm/tinyshakespeare"
MODELS = {"llama": "LLaMA", "gpt": "GPT", "glm": "GLM"}  #: that are compared, and their titles
VALIDATION = 0.1  #: share of the text, at its end


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A language model over bytes and the length of its training; the same for every optimiser."""

    model: str  #: name in `oarlock.llm.models`
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int | None  #: None where the model has no grouped queries
    batch: int  #: sequences a step
    context: int  #: tokens a sequence
    steps: int  #: of the AdamW run
    shorter: tuple[int, ...]  #: lengths of the Muon runs, chosen to enclose AdamW's loss
    seeds: int
    validation_batches: int

    @property
    def tokens_a_step(self) -> int:
        return self.batch * self.context


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One optimiser with its hyper-parameters.

    All learning rates rise over `warmup` of the steps and fall linearly to zero. Embedding and head
    have their own, and so have vectors (gains and biases), whatever the optimiser: a plain AdamW has
    one rate for all, but much of what Muon gains on small models comes from the second rate, so the
    baseline gets it too. Gradients are clipped to the global norm 1; vectors are not decayed.
    """

    optimizer: str
    learning_rate: float  #: of matrices
    table_learning_rate: float  #: of embedding and head
    vector_learning_rate: float = 4e-3  #: of gains and biases
    warmup: float = 0.1
    options: Mapping[str, Any] = field(default_factory=dict)


_LLAMA = Task(
    model="llama",
    hidden_size=128,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    batch=64,
    context=128,
    steps=100,
    shorter=(46, 76),
    seeds=5,
    validation_batches=3,
)

# Eight times the batch, and an eighth of the steps: the same tokens.
_BASE_BATCH = replace(
    _LLAMA, hidden_size=96, batch=4, context=64, steps=1600, shorter=(), validation_batches=32
)
_LARGE_BATCH = replace(_BASE_BATCH, batch=32, steps=200, validation_batches=4)

_TABLE = replace(
    _LLAMA, hidden_size=64, num_layers=2, batch=16, context=64, steps=150, validation_batches=8
)

#: By tier, then by name: the models that are compared, the model of the table of all optimisers,
#: and two batch sizes of one LLaMA.
TASKS = {
    "quick": {
        "llama": replace(
            _LLAMA,
            hidden_size=64,
            num_layers=2,
            num_heads=2,
            num_kv_heads=1,
            batch=8,
            context=64,
            steps=100,
            shorter=(100,),
            seeds=2,
            validation_batches=4,
        ),
    },
    "full": {
        "llama": _LLAMA,
        "gpt": replace(_LLAMA, model="gpt", num_kv_heads=None, shorter=(38, 76)),
        "glm": replace(_LLAMA, model="glm"),
        "table": _TABLE,
        "base-batch": _BASE_BATCH,
        "large-batch": _LARGE_BATCH,
    },
}

#: Winners of the sweeps in `integration/results/sweeps/1.1-<tier>-<task>.json`.
BEST: dict[str, dict[str, dict[str, Setting]]] = {
    "quick": {
        "llama": {
            "adamw": Setting(
                optimizer="adamw",
                learning_rate=0.008,
                table_learning_rate=0.032,
                warmup=0.4,
                options={"beta1": 0.8, "beta2": 0.95, "weight_decay": 0.1},
            ),
            "muon": Setting(
                optimizer="muon",
                learning_rate=0.08,
                table_learning_rate=0.128,
                options={
                    "momentum": 0.9,
                    "adamw_beta2": 0.99,
                    "weight_decay": 0.1,
                    "adamw_weight_decay": 0.1,
                },
            ),
        },
    },
    "full": {
        "llama": {
            "adamw": Setting(
                optimizer="adamw",
                learning_rate=0.008,
                table_learning_rate=0.128,
                warmup=0.4,
                options={"beta1": 0.9, "beta2": 0.99, "weight_decay": 0.1},
            ),
            "muon": Setting(
                optimizer="muon",
                learning_rate=0.04,
                table_learning_rate=0.032,
                warmup=0.03,
                options={
                    "momentum": 0.9,
                    "adamw_beta2": 0.9,
                    "weight_decay": 0.1,
                    "adamw_weight_decay": 0.1,
                },
            ),
        },
        "glm": {
            "adamw": Setting(
                optimizer="adamw",
                learning_rate=0.008,
                table_learning_rate=0.128,
                warmup=0.4,
                options={"beta1": 0.9, "beta2": 0.95, "weight_decay": 0.1},
            ),
            "muon": Setting(
                optimizer="muon",
                learning_rate=0.04,
                table_learning_rate=0.064,
                warmup=0.03,
                options={
                    "momentum": 0.9,
                    "adamw_beta2": 0.95,
                    "weight_decay": 0.1,
                    "adamw_weight_decay": 0.1,
                },
            ),
        },
        "gpt": {
            "adamw": Setting(
                optimizer="adamw",
                learning_rate=0.004,
                table_learning_rate=0.032,
                warmup=0.4,
                options={"beta1": 0.8, "beta2": 0.95, "weight_decay": 0.1},
            ),
            "muon": Setting(
                optimizer="muon",
                learning_rate=0.08,
                table_learning_rate=0.032,
                warmup=0.4,
                options={
                    "momentum": 0.9,
                    "adamw_beta2": 0.95,
                    "weight_decay": 0.1,
                    "adamw_weight_decay": 0.1,
                },
            ),
        },
        "base-batch": {
            "adamw": Setting(
                optimizer="adamw",
                learning_rate=0.001,
                table_learning_rate=0.008,
                warmup=0.4,
                options={"beta1": 0.8, "beta2": 0.99, "weight_decay": 0.1},
            ),
            "muon": Setting(
                optimizer="muon",
                learning_rate=0.01,
                table_learning_rate=0.008,
                warmup=0.25,
                options={
                    "momentum": 0.8,
                    "adamw_beta2": 0.95,
                    "weight_decay": 0.1,
                    "adamw_weight_decay": 0.1,
                },
            ),
        },
        "large-batch": {
            "adamw": Setting(
                optimizer="adamw",
                learning_rate=0.004,
                table_learning_rate=0.016,
                warmup=0.6,
                options={"beta1": 0.8, "beta2": 0.99, "weight_decay": 0.1},
            ),
            "muon": Setting(
                optimizer="muon",
                learning_rate=0.08,
                table_learning_rate=0.016,
                warmup=0.03,
                options={
                    "momentum": 0.8,
                    "adamw_beta2": 0.9,
                    "weight_decay": 0.1,
                    "adamw_weight_decay": 0.1,
                },
            ),
        },
    },
}


def best(tier: str, name: str) -> dict[str, Setting]:
    """Winners of the sweep of a task, by optimiser.

    Raises:
        ValueError: the task was not swept yet.
    """
    try:
        return BEST[tier][name]
    except KeyError:
        raise ValueError(
            f"task {name!r} of the {tier} tier has no settings yet: run python -m"
            f" oarlock.accept.convergence.sweep --tier {tier} --task {name}, and put the winners"
            " into BEST in oarlock/accept/convergence/settings.py"
        ) from None
