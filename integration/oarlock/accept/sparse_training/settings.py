"""What is trained for criterion 2.3.1: a language model over contexts where attention costs most."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from oarlock.accept.convergence.settings import Setting, Task
from oarlock.accept.low_precision.settings import ADAMW
from oarlock.native import masks
from oarlock.native.masks import Mask


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A dense model, what its sparse copy sees, and a narrower dense rival of as many operations."""

    task: Task
    window: int  #: tokens that a token sees in all layers but the last, which sees all
    narrow: int  #: width of the rival
    setting: Setting  #: of all arms
    sparse_steps: tuple[int, int]  #: two lengths, between which the dense model's loss is reached
    narrow_steps: tuple[int, int]

    @property
    def rival(self) -> Task:
        """The narrower task; heads keep their size."""
        return _of_width(self.task, self.narrow)

    def dense(self) -> list[Mask]:
        """What each layer of a dense model sees."""
        return [masks.causal()] * self.task.num_layers

    def windows(self) -> list[Mask]:
        """What each layer of the sparse model sees."""
        local = masks.sliding_window(self.task.context, self.window)
        return [local] * (self.task.num_layers - 1) + [masks.causal()]


def _of_width(task: Task, width: int) -> Task:
    heads = task.num_heads * width // task.hidden_size
    return replace(task, hidden_size=width, num_heads=heads)


def operations(task: Task, seen: Sequence[Mask]) -> float:
    """Multiplications for a token in a training step, by the shapes of a LLaMA and its masks.

    A product has two gradients, each as long as itself. Attention has two products forward, and five
    backward: scores are computed anew.

    Args:
        task: LLaMA without grouped queries.
        seen: mask of each layer.
    """
    width = task.hidden_size
    weights = task.num_layers * _weights(width, 1.0) + 256 * width
    keys = sum(mask.seen(task.context) * task.context for mask in seen)
    return 3 * weights + 7 * width * keys


def _weights(width: int, kept: float) -> float:
    """Of a layer, those that multiply a token, with a share of the feed-forward ones kept."""
    from oarlock.llm.models.llama import LlamaConfig  # the command line starts without Paddle

    config = LlamaConfig(vocab_size=256, hidden_size=width)
    return 4 * width**2 + 3 * width * config.intermediate_size * kept


#: Of all arms: the best of the trials of both dense models, `integration/results/sweeps/2.3.1-full-*.json`, to
#: which `python -m oarlock.accept.sparse_training.rates` adds.
MUON = Setting(
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
)

_TASK = Task(
    model="llama",
    hidden_size=192,
    num_layers=4,
    num_heads=6,
    num_kv_heads=None,
    batch=2,
    context=2048,
    steps=160,
    shorter=(),
    seeds=3,
    validation_batches=4,
)
_COMPARISON = Comparison(
    task=_TASK,
    window=256,
    narrow=160,
    setting=MUON,
    sparse_steps=(100, 135),
    narrow_steps=(130, 170),
)
#: By tier.
COMPARISONS = {
    "quick": replace(
        _COMPARISON,
        task=replace(
            _TASK,
            hidden_size=64,
            num_layers=2,
            num_heads=2,
            batch=4,
            context=128,
            steps=20,
            seeds=1,
            validation_batches=2,
        ),
        window=32,
        narrow=32,
        setting=replace(MUON, learning_rate=0.02, table_learning_rate=0.008),
        sparse_steps=(15, 30),
        narrow_steps=(15, 30),
    ),
    "full": _COMPARISON,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """A dense model, the share of blocks of its feed-forward weights that is kept, and a narrower rival."""

    task: Task
    setting: Setting  #: of all arms
    kept: float
    tail: float  #: share of the steps, at the end, in which all weights train
    every: int  #: steps between changes of the masks
    narrow: int  #: width of the rival

    @property
    def rival(self) -> Task:
        """The narrower task; heads keep their size."""
        return _of_width(self.task, self.narrow)

    def parameters(self) -> tuple[float, float]:
        """Weights that multiply a token in a layer, mean over the steps: of the sparse model and the rival."""
        kept = self.kept * (1 - self.tail) + self.tail
        return _weights(self.task.hidden_size, kept), _weights(self.narrow, 1.0)


BLOCK = (16, 16)
_WIDE = replace(
    _TASK, hidden_size=512, num_layers=2, num_heads=16, batch=16, context=128, steps=120
)
WEIGHTS = {
    "quick": Weights(
        task=replace(COMPARISONS["quick"].task, context=64),
        setting=replace(ADAMW["llama"], learning_rate=0.004, table_learning_rate=0.008),
        kept=0.25,
        tail=0.2,
        every=5,
        narrow=48,
    ),
    "full": Weights(task=_WIDE, setting=ADAMW["llama"], kept=0.25, tail=0.2, every=10, narrow=416),
}
