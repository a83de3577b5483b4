"""A rank of three that tries every operation of `paddle.distributed`; writes a line of JSON for each check."""

import json
import time
import traceback

import numpy as np
import paddle
import paddle.distributed as dist
from oarlock.fleet_ext.paddle_cpu import install
from paddle.distributed import ReduceOp, stream
from paddle.distributed.fleet.layers.mpu import mp_ops

SIZE = 3
CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


def full(value, dtype="float32", shape=(2, 2)):
    return paddle.full(shape, value, dtype)


def equal(found, expected):
    np.testing.assert_array_equal(found.astype("float32").numpy(), np.asarray(expected, np.float32))


@check
def half_precision_is_added_up(rank):
    for dtype in ("float16", "bfloat16", "float32", "float64", "int32", "int64", "uint8", "int8"):
        tensor = full(rank + 1, dtype)
        dist.all_reduce(tensor)
        equal(tensor, full(6))


@check
def all_reduce_of_every_kind(rank):
    for op, expected in (
        (ReduceOp.MAX, 3),
        (ReduceOp.MIN, 1),
        (ReduceOp.PROD, 6),
        (ReduceOp.AVG, 2),
    ):
        for dtype in ("float16", "float32"):
            tensor = full(rank + 1, dtype)
            dist.all_reduce(tensor, op)
            equal(tensor, full(expected))
    flags = full(rank == 1, "bool")
    dist.all_reduce(flags)
    equal(flags, full(1))
    number = paddle.to_tensor(1.0)
    assert number.shape == []
    stream.all_reduce(number, use_calc_stream=True)
    assert number.item() == SIZE
    late = full(rank)
    assert dist.all_reduce(late, sync_op=False).wait()
    equal(late, full(3))


@check
def complex_numbers_are_added_up(rank):
    tensor = paddle.complex(full(rank), full(1.0))
    dist.all_reduce(tensor)
    equal(paddle.imag(tensor), full(3))


@check
def reduce_scatter_of_lists_and_tensors(rank):
    parts = [full(10 * rank + to) for to in range(SIZE)]
    for op, scale in ((ReduceOp.SUM, 1), (ReduceOp.AVG, 1 / SIZE)):
        expected = full((30 + SIZE * rank) * scale)
        out = full(0)
        dist.reduce_scatter(out, [one.clone() for one in parts], op)
        equal(out, expected)
        out = full(0)
        stream.reduce_scatter(out, paddle.concat(parts), op, use_calc_stream=True)
        equal(out, expected)


@check
def all_gather_of_lists_tensors_and_objects(rank):
    found = []
    dist.all_gather(found, full(rank, "float16"))
    for other, one in enumerate(found):
        equal(one, full(other))
    out = paddle.empty([2 * SIZE, 2])
    stream.all_gather(out, full(rank))
    equal(out, np.repeat(np.arange(SIZE), 4).reshape(6, 2))
    objects = []
    dist.all_gather_object(objects, {"rank": rank, "text": "x" * rank})
    assert [one["rank"] for one in objects] == [0, 1, 2] and objects[2]["text"] == "xx"


@check
def alltoall_of_lists_tensors_and_sizes(rank):
    found = []
    dist.alltoall(found, [full(10 * rank + to) for to in range(SIZE)])
    for other, one in enumerate(found):
        equal(one, full(10 * other + rank))
    out = paddle.empty([SIZE, 2])
    stream.alltoall(out, paddle.stack([full(10 * rank + to, shape=[2]) for to in range(SIZE)]))
    equal(out[:, 0], [rank, 10 + rank, 20 + rank])
    given = paddle.concat([full(10 * rank + to, shape=[to + 1, 2]) for to in range(SIZE)])
    out = paddle.empty([(rank + 1) * SIZE, 2])
    dist.alltoall_single(out, given, in_split_sizes=[1, 2, 3], out_split_sizes=[rank + 1] * SIZE)
    equal(out[:, 0], np.repeat([rank, 10 + rank, 20 + rank], rank + 1))
    dist.alltoall_single(even := paddle.empty([SIZE]), full(rank, shape=[SIZE]))
    equal(even, range(SIZE))


@check
def one_to_all_and_all_to_one(rank):
    tensor = full(rank)
    dist.broadcast(tensor, src=2)
    equal(tensor, full(2))
    tensor = full(rank)
    dist.reduce(tensor, dst=1)
    equal(tensor, full(3 if rank == 1 else rank))
    found = []
    dist.gather(full(rank), found, dst=1)
    if rank == 1:
        assert [one[0, 0].item() for one in found] == [0, 1, 2]
    out = full(0)
    dist.scatter(out, [full(5 + to) for to in range(SIZE)] if rank == 1 else None, src=1)
    equal(out, full(5 + rank))
    objects = [{"from": rank}]
    dist.broadcast_object_list(objects, src=1)
    assert objects == [{"from": 1}]
    found = []
    dist.scatter_object_list(found, [{"to": to} for to in range(SIZE)], src=2)
    assert found == [{"to": rank}]


@check
def messages_do_not_disturb_a_group_of_three(rank):
    if rank == 0:
        dist.send(full(7), dst=1)
        dist.send(full(8, "float16"), dst=1)
    elif rank == 1:
        out = full(0)
        dist.recv(out, src=0)
        equal(out, full(7))
        dist.recv(out := full(0, "float16"), src=0)
        equal(out, full(8))
    tensor = full(1)
    dist.all_reduce(tensor)
    equal(tensor, full(SIZE))


@check
def messages_in_a_ring(rank):
    after, before = (rank + 1) % SIZE, (rank - 1) % SIZE
    for order in (1, -1):
        out = paddle.empty([100_000])
        operations = [
            dist.P2POp(dist.isend, full(rank, shape=[100_000]), after),
            dist.P2POp(dist.irecv, out, before),
        ]
        for task in dist.batch_isend_irecv(operations[::order]):
            task.wait()
        assert out[-1].item() == before
    tasks = [dist.isend(full(rank), after), dist.irecv(out := full(-1), before)]
    for task in tasks:
        task.wait()
    equal(out, full(before))


@check
def many_groups(rank):
    groups = [dist.new_group([0, 1 + index % 2]) for index in range(8)]
    for index, group in enumerate(groups):
        if rank in group.ranks:
            tensor = full(rank)
            dist.all_reduce(tensor, group=group)
            equal(tensor, full(1 + index % 2))
            assert dist.get_rank(group) == group.ranks.index(rank)


@check
def waiting(rank):
    dist.barrier()
    tensor = paddle.ones([300_000])
    dist.all_reduce(tensor, sync_op=False)
    dist.wait(tensor)
    assert tensor[-1].item() == SIZE


@check
def operations_go_on_in_the_background(rank):
    dist.barrier()
    if rank == 0:
        time.sleep(0.5)
    begin = time.monotonic()
    task = dist.all_reduce(full(1), sync_op=False)
    begun = time.monotonic() - begin
    assert begun < 0.2 and (rank == 0 or not task.is_completed())
    task.wait()


@check
def wrong_arguments_are_told(rank):
    for call, words in (
        (lambda: dist.all_reduce(paddle.ones([3, 2]).T), "contiguous"),
        (lambda: dist.reduce_scatter(full(0), [full(0)]), "must have 3 tensors"),
        (lambda: stream.alltoall(paddle.empty([4]), paddle.empty([4])), "divisible by 3"),
    ):
        try:
            call()
        except ValueError as error:
            assert words in str(error), error
        else:
            raise AssertionError(words)


@check
def groups_are_shut_down_and_restarted(rank):
    group = dist.new_group([0, 1, 2])
    dist.all_reduce(full(1), group=group)
    dist.shutdown_process_group(group)
    dist.restart_process_group(group)
    tensor = full(1)
    dist.all_reduce(tensor, group=group)
    equal(tensor, full(SIZE))


@check
def cross_entropy_over_ranks(rank):
    """With labels that are ignored, against all classes on one rank."""
    classes, ignored = 4, 7
    logits = np.random.default_rng(0).standard_normal((2, 5, SIZE * classes)).astype(np.float32)
    label = np.random.default_rng(1).integers(0, SIZE * classes, (2, 5))
    label[0, 1] = label[1, 3] = ignored
    whole = paddle.to_tensor(logits, stop_gradient=False)
    wanted = paddle.nn.functional.cross_entropy(
        whole, paddle.to_tensor(label), reduction="none", ignore_index=ignored
    )
    (wanted * wanted).sum().backward()
    own = slice(rank * classes, (rank + 1) * classes)
    part = paddle.to_tensor(logits[..., own], stop_gradient=False)
    for shape in (label.shape, (*label.shape, 1)):
        part.clear_gradient()
        loss, softmax = mp_ops._c_softmax_with_cross_entropy(
            part, paddle.to_tensor(label.reshape(shape)), group=dist.get_group(0),
            return_softmax=True, ignore_index=ignored,
        )  # fmt: skip
        (loss * loss).sum().backward()
        np.testing.assert_allclose(loss[..., 0].numpy(), wanted.numpy(), rtol=1e-5)
        np.testing.assert_allclose(part.grad.numpy(), whole.grad.numpy()[..., own], atol=1e-6)
        expected = paddle.nn.functional.softmax(whole)[..., own]
        np.testing.assert_allclose(softmax.numpy(), expected.numpy(), rtol=1e-5)


@check
def float16_is_refused_where_gloo_would_add_it_up(rank):
    try:
        paddle.DataParallel(paddle.nn.Linear(2, 2).to(dtype="float16"))
    except ValueError as error:
        assert "float16" in str(error)
    else:
        raise AssertionError("it was not refused")


@check
def a_missing_rank_is_named(rank):
    group = dist.new_group([0, 1, 2])
    group.process_group.transport.timeout = 1.0
    if rank == 2:
        time.sleep(3.0)
        return
    try:
        dist.all_reduce(full(1), group=group)
    except RuntimeError as error:
        assert "rank 2" in str(error), error
    else:
        raise AssertionError("it did not fail")


def main():
    with install():
        dist.init_parallel_env()
        rank = dist.get_rank()
        for one in CHECKS:
            try:
                one(rank)
                said = {"check": one.__name__, "error": None}
            except Exception:
                said = {"check": one.__name__, "error": traceback.format_exc()}
            print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
