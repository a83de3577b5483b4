"""A rank that trains in some modes, one after the other, and compares each with one process that trains alone.

Called with the names of modes; writes a line of JSON for each: the largest differences of losses and parameters.
"""

import json
import sys
import traceback

import numpy as np
import paddle
import paddle.distributed as dist
from oarlock.fleet_ext.compress import EveryStep, wrap
from oarlock.fleet_ext.paddle_cpu import install
from paddle.distributed import fleet
from paddle.distributed.fleet.base import topology
from paddle.distributed.sharding import group_sharded_parallel

import small_models as models
from small_models import BATCH, STEPS, batch, part


def optimizer(parameters, kind="momentum"):
    if kind == "adamw":
        return paddle.optimizer.AdamW(0.01, parameters=parameters, weight_decay=0.1, epsilon=1e-6)
    return paddle.optimizer.Momentum(0.1, 0.9, parameters=parameters, weight_decay=0.01)


def alone(model, kind="momentum"):
    """Losses and final parameters of one process."""
    steps = optimizer(model.parameters(), kind)
    losses = []
    for step in range(STEPS):
        words, targets = map(paddle.to_tensor, batch(step))
        loss = model.loss(words, targets)
        loss.backward()
        steps.step()
        steps.clear_grad()
        losses.append(loss.item())
    return losses, [one.numpy() for one in model.parameters()]


def hybrid(*, split_param=False, **degrees):
    """fleet's strategy, and its groups."""
    strategy = fleet.DistributedStrategy()
    names = ("dp", "mp", "pp", "sharding")
    strategy.hybrid_configs = {f"{name}_degree": degrees.get(name, 1) for name in names}
    strategy.hybrid_configs["sharding_configs"].split_param = split_param
    if degrees.get("pp"):
        batches = degrees["pp"]
        micro = BATCH // degrees.get("dp", 1) // batches
        strategy.pipeline_configs = {"accumulate_steps": batches, "micro_batch_size": micro}
    topology._HYBRID_PARALLEL_GROUP = None  # otherwise fleet keeps those of the mode before
    fleet.init(is_collective=True, strategy=strategy)
    return fleet.get_hybrid_communicate_group()


def train(run, rank, parts):
    """Losses, averaged over the ranks that have parts of the batch."""
    losses = []
    for step in range(STEPS):
        words, targets = batch(step)
        loss = run(part(words, rank, parts), part(targets, rank, parts))
        losses.append(loss.detach().reshape([]).astype("float32"))
    total = paddle.stack(losses)
    dist.all_reduce(total, op=dist.ReduceOp.AVG)
    return total.tolist()


def stepper(forward, steps):
    def run(words, targets):
        loss = forward(words, targets)
        loss.backward()
        steps.step()
        steps.clear_grad()
        return loss

    return run


class Losses(paddle.nn.Layer):
    """A model whose forward is its loss, for wrappers that want one."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, words, targets):
        return self.model.loss(words, targets)


def difference(found, expected):
    """The largest, relative to the largest number of each array."""
    return max(
        float(np.abs(np.asarray(a) - b).max() / np.abs(b).max()) for a, b in zip(found, expected, strict=True)
    )  # fmt: skip


def own_parts(model, expected, group):
    """What this rank has of expected parameters."""
    return [
        array if models.split_axis(one) is None
        else np.split(array, group.nranks, models.split_axis(one))[group.rank]
        for one, array in zip(model.parameters(), expected, strict=True)
    ]  # fmt: skip


def dp2(kind="adamw"):
    expected = alone(models.Whole(), kind)
    model = models.Whole()
    if dist.get_rank() == 1:
        model.first.weight.set_value(np.zeros_like(model.first.weight))  # comes from rank 0
    wrapped = paddle.DataParallel(Losses(model))
    losses = train(stepper(wrapped, optimizer(model.parameters(), kind)), dist.get_rank(), 2)
    return losses, model.parameters(), *expected


def wrapped():
    """Our own hooks, and buckets of a few parameters."""
    expected = alone(models.Whole(), "adamw")
    model = models.Whole()
    group = dist.get_group(0).process_group.transport.subgroup(range(2), "gradients")
    steps = wrap(model, optimizer(model.parameters(), "adamw"), group, EveryStep(bucket_bytes=600))

    def run(words, targets):
        loss = model.loss(words, targets)
        loss.backward()
        steps.step()
        steps.clear_grad()
        return loss

    losses = train(run, dist.get_rank(), 2)
    return losses, model.parameters(), *expected


def mp2():
    expected, parameters = alone(models.Whole())
    group = hybrid(mp=2).get_model_parallel_group()
    model = models.TensorParallel(group)
    wrapped = fleet.distributed_model(Losses(model))
    steps = fleet.distributed_optimizer(optimizer(model.parameters()))
    losses = train(stepper(wrapped, steps), 0, 1)
    return losses, model.parameters(), expected, own_parts(model, parameters, group)


def dp2_mp2():
    expected, parameters = alone(models.Whole())
    groups = hybrid(dp=2, mp=2)
    group = groups.get_model_parallel_group()
    model = models.TensorParallel(group)
    wrapped = fleet.distributed_model(Losses(model))
    steps = fleet.distributed_optimizer(optimizer(model.parameters()))
    losses = train(stepper(wrapped, steps), groups.get_data_parallel_rank(), 2)
    return losses, model.parameters(), expected, own_parts(model, parameters, group)


def mp2_sharding2():
    expected, parameters = alone(models.Whole(), "adamw")
    groups = hybrid(mp=2, sharding=2)
    group = groups.get_model_parallel_group()
    model = models.TensorParallel(group)
    wrapped = fleet.distributed_model(Losses(model))
    steps = fleet.distributed_optimizer(optimizer(model.parameters(), "adamw"))
    losses = train(stepper(wrapped, steps), groups.get_sharding_parallel_rank(), 2)
    return losses, model.parameters(), expected, own_parts(model, parameters, group)


def sharding2():
    expected = alone(models.Whole(), "adamw")
    groups = hybrid(sharding=2)
    model = models.Whole()
    wrapped = fleet.distributed_model(Losses(model))
    steps = fleet.distributed_optimizer(optimizer(model.parameters(), "adamw"))
    losses = train(stepper(wrapped, steps), groups.get_sharding_parallel_rank(), 2)
    return losses, model.parameters(), *expected


def sharded(level):
    expected = alone(models.Whole(), "adamw")
    model = models.Whole()
    losses = Losses(model)
    wrapped, steps, _ = group_sharded_parallel(
        losses, optimizer(model.parameters(), "adamw"), level, segment_size=64
    )
    found = train(stepper(wrapped, steps), dist.get_rank(), 2)
    if level == "p_g_os":
        wrapped.get_all_parameters()
    return found, model.parameters(), *expected


def stage2():
    return sharded("os_g")


def stage3():
    return sharded("p_g_os")


def split_parameters():
    """Stage 1 whose parameters are cut anywhere: gradients are scattered, parameters gathered."""
    expected = alone(models.Whole(), "adamw")
    groups = hybrid(sharding=2, split_param=True)
    model = models.Whole()
    wrapped = fleet.distributed_model(Losses(model))
    steps = fleet.distributed_optimizer(optimizer(model.parameters(), "adamw"))
    losses = train(stepper(wrapped, steps), groups.get_sharding_parallel_rank(), 2)
    return losses, model.parameters(), *expected


def pipelined(groups, pieces=2, chunks=1):
    """Each stage has as many chunks of the layers, in turn."""
    whole = models.Pipelined(pieces)
    expected, _ = alone(whole)
    model = models.pipeline(groups.topology(), pieces, chunks)
    wrapped = fleet.distributed_model(model)
    steps = fleet.distributed_optimizer(optimizer(model.parameters()))
    losses = train(
        lambda words, targets: wrapped.train_batch([words, targets], steps),
        groups.get_data_parallel_rank(), groups.get_data_parallel_world_size(),
    )  # fmt: skip
    stages = groups.get_pipe_parallel_world_size()
    parts = np.split(np.arange(pieces + 2), stages * chunks)[groups.get_stage_id() :: stages]
    own = [one.numpy() for index in np.concatenate(parts) for one in whole.layers[int(index)].parameters()]  # fmt: skip
    return losses, model.parameters(), expected, own


def pp2():
    return pipelined(hybrid(pp=2))


def pp4_interleaved():
    return pipelined(hybrid(pp=4), pieces=6, chunks=2)


def dp2_pp2():
    return pipelined(hybrid(dp=2, pp=2))


def mp2_pp2():
    """Ranks of tensor parallelism send parts of what goes between stages, and gather them there."""
    return pipelined(hybrid(mp=2, pp=2))


def main(names):
    with install():
        dist.init_parallel_env()
        for name in names:
            try:
                losses, parameters, expected, wanted = globals()[name]()
                said = {
                    "losses": difference([losses], [np.array(expected)]),
                    "parameters": difference([one.numpy() for one in parameters], wanted),
                    "fell": expected[0] - expected[-1],
                }
            except Exception:
                said = {"error": traceback.format_exc()[-2000:]}
            print(json.dumps({"mode": name, **said}), flush=True)
        dist.barrier()


if __name__ == "__main__":
    main(sys.argv[1:])
