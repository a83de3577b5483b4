"""What ranks train, and on what network."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A decoder-only language model over bytes, and its training; AdamW and clipping are as LLaMA's (2302.13971).

    Without clipping, and with a mean of squares over 1000 steps, a single large gradient of the first steps tells in the
    loss of all later ones, so that trainings end as far apart as their luck.

    Args:
        shape: of `LlamaConfig`.
        batch, context: sequences of a rank in a step, and bytes of each.
        steps: of training.
        ranks: processes.
        rate: of learning, which rises over a tenth of the steps and falls to a tenth.
        beta2: AdamW's, of the mean of squares.
        clip: the norm of all gradients together, at most.
        validation: batches of held-out text that each rank looks at, all of them others.
        every: steps between two looks at held-out text; 0 for none.
    """

    shape: dict[str, int] = field(
        default_factory=lambda: {
            "vocab_size": 256,
            "hidden_size": 512,
            "num_layers": 7,
            "num_heads": 8,
        }
    )
    batch: int = 2
    context: int = 64
    steps: int = 30
    ranks: int = 4
    rate: float = 1e-3
    beta2: float = 0.95
    clip: float = 1.0
    validation: int = 16
    every: int = 0

    def learning_rate(self, step: int) -> float:
        warm = max(1, self.steps // 10)
        if step < warm:
            return self.rate * (step + 1) / warm
        return self.rate * (1 - 0.9 * (step - warm) / max(1, self.steps - warm))

    def held_out(self, rank: int) -> range:
        """Numbers of the batches of held-out text that a rank looks at."""
        return range(rank * self.validation, (rank + 1) * self.validation)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """A library and how it sends gradients.

    Args:
        library: "paddle" (DataParallel), "torch" (DistributedDataParallel) or "ours".
        way: of the library: a strategy's name, "float32", "bf16", "fp16", "powersgd" (rank 4) or "powersgd-16".
        options: of the strategy; `warm_up` of PowerSGD's hook, too.
    """

    library: str
    way: str
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.library} {self.way}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a rank is told, as a file.

    Args:
        weights: .npz of initial weights, for PyTorch.
        text: .npy of bytes.
        out: folder for what ranks say.
        time_only: whether only times are wanted, not losses on held-out text.
    """

    task: Task
    arm: Arm
    seed: int
    weights: str
    text: str
    out: str
    time_only: bool

    def write(self, path: Path) -> Path:
        path.write_text(json.dumps(asdict(self)))
        return path

    @classmethod
    def read(cls, path: str) -> Self:
        given = json.loads(Path(path).read_text())
        return cls(**given | {"task": Task(**given["task"]), "arm": Arm(**given["arm"])})
