"""What is trained for criterion 1.2: models wide enough that products take most of a step."""

from dataclasses import replace

from oarlock.accept.convergence.settings import Setting, Task

_LLAMA = Task(
    model="llama",
    hidden_size=512,
    num_layers=2,
    num_heads=8,
    num_kv_heads=4,
    batch=16,
    context=128,
    steps=120,
    shorter=(),
    seeds=3,
    validation_batches=4,
)

#: By tier and model.
TASKS = {
    "quick": {
        "llama": replace(
            _LLAMA,
            hidden_size=64,
            num_layers=1,
            num_heads=2,
            num_kv_heads=1,
            batch=4,
            context=32,
            steps=30,
            seeds=1,
        )
    },
    "full": {"llama": _LLAMA, "gpt": replace(_LLAMA, model="gpt", num_kv_heads=None)},
}

#: AdamW in float32 by model: the best of `integration/results/sweeps/1.2-full-<model>.json`, to which
#: `python -m oarlock.accept.low_precision.rates` adds trials. Every arm takes it.
_ADAMW = Setting(
    optimizer="adamw",
    learning_rate=0.001,
    table_learning_rate=0.001,
    warmup=0.25,
    options={"beta1": 0.9, "beta2": 0.95, "weight_decay": 0.1},
)
ADAMW = {"llama": _ADAMW, "gpt": replace(_ADAMW, learning_rate=0.0005)}
#: Longer schedules that low precision trains to, to enclose the loss of float32.
LONGER = 1.1

FORMATS = ("int16", "fp16", "bf16", "int8", "int8_block", "fp8")
QUICK_FORMATS = ("bf16", "int8", "fp8")

#: What the probe is held against, and what uniform formats train.
_SMALL = replace(
    _LLAMA, hidden_size=64, num_layers=2, num_heads=2, num_kv_heads=1, batch=8, context=64, steps=40
)
SMALL = {
    "quick": replace(_SMALL, num_layers=1, context=32, steps=20, seeds=1),
    "full": _SMALL,
    "recipes": replace(_SMALL, hidden_size=128, batch=16, steps=150),
}
SMALL_ADAMW = replace(_ADAMW, learning_rate=0.004, table_learning_rate=0.032, warmup=0.1)
STEPS_OF_A_CHOICE = {"quick": 4, "full": 10}
