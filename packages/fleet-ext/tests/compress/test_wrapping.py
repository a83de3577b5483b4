"""Training of one model on several ranks."""

import numpy as np
import paddle
import pytest
from oarlock.fleet_ext.compress import Adaptive, EveryStep, Exact, LocalSteps, averaging_of, wrap
from oarlock.fleet_ext.compress.gradients import Gradients
from oarlock.fleet_ext.transport import Aborted
from paddle import nn

from one_model import PADDLE, again, flat, loss_of, model, more, trained, trained_alone
from ranks import together, well


@pytest.mark.parametrize("size", (1, 2, 3))
@pytest.mark.parametrize("bytes", (1, 600, 1 << 20))
def test_exact_training_is_that_of_one_process(size, bytes):
    def run(group):
        net, optimizer = trained(group, EveryStep(averaging=Exact(), bucket_bytes=bytes), 5)
        optimizer.close()
        return flat(net)

    found = well(together(size, run))
    for one in found:
        np.testing.assert_array_equal(one, found[0])
    np.testing.assert_allclose(found[0], trained_alone(range(size), 5), atol=2e-5)


@pytest.mark.parametrize(
    "name",
    (
        "bf16",
        "int8",
        "int4",
        "1-bit",
        "rank-2",
        "sparseloco",
        "demo",
        "hosts-int4",
        "local-steps",
        "adaptive",
    ),
)
def test_every_strategy_keeps_ranks_together_and_learns(name):
    def run(group):
        net, optimizer = trained(
            group, LocalSteps(period=4) if name == "local-steps" else name, 40, rate=0.01
        )
        optimizer.finish()
        said = optimizer.report()
        optimizer.close()
        with PADDLE:
            loss = float(loss_of(net, [0, 1], 0))
        return flat(net), loss, said

    found = well(together(2, run))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    before = float(loss_of(model(), [0, 1], 0))
    assert found[0][1] < before and found[0][2]


def test_batches_in_parts_are_one_step():
    def run(group):
        net, optimizer = trained(group, "float32", 3, parts=2)
        optimizer.close()
        return flat(net)

    whole = model()
    optimizer = paddle.optimizer.AdamW(0.05, parameters=whole.parameters())
    for step in range(3):
        ((loss_of(whole, [0, 1], step) + loss_of(whole, [0, 1], 100 + step)) / 2).backward()
        optimizer.step()
        optimizer.clear_grad()
    np.testing.assert_allclose(well(together(2, run))[1], flat(whole), atol=2e-5)


def test_delayed_means_come_a_step_later():
    """With plain SGD and a gradient that does not depend on the parameters."""

    def run(group):
        parameter = paddle.create_parameter(
            [3], "float32", default_initializer=nn.initializer.Constant(0.0)
        )
        net = nn.Layer()
        net.weight = parameter
        optimizer = wrap(
            net, paddle.optimizer.SGD(1.0, parameters=[parameter]), group, EveryStep(delayed=True)
        )
        seen = []
        for step in range(3):
            with PADDLE:
                ((step + 1.0) * parameter * (group.rank + 1.0)).sum().backward()
            optimizer.step()
            optimizer.clear_grad()
            seen.append(float(parameter[0]))
        optimizer.finish()
        seen.append(float(parameter[0]))
        optimizer.close()
        return seen

    assert well(together(2, run)) == [[0.0, -1.5, -4.5, -9.0]] * 2


def test_parameters_without_a_gradient_are_told_or_count_as_zero():
    def run(group):
        net = model()
        spare = nn.Linear(2, 2)
        both = [*net.parameters(), *spare.parameters()]
        strict = Gradients(both, group, Exact())
        with PADDLE:
            loss_of(net, [group.rank], 0).backward()
        with pytest.raises(ValueError, match="2 parameters have no gradient .*unused=True"):
            strict.finish()
        strict.close()
        for one in both:
            one.clear_gradient()
        lenient = Gradients(both, group, Exact(), unused=True)
        with PADDLE:
            loss = loss_of(net, [group.rank], 0)
            if group.rank == 0:
                loss = loss + spare(paddle.ones([1, 2])).sum()
            loss.backward()
        assert lenient.finish()
        lenient.close()
        return spare.weight.grad.numpy()

    for one in well(together(2, run)):
        assert (one == 0.5).all()


def test_a_second_backward_pass_is_told():
    def run(group):
        net = model()
        gradients = Gradients(net.parameters(), group, Exact())
        with PADDLE:
            loss_of(net, [group.rank], 0).backward()
            loss_of(net, [group.rank], 1).backward()
        with pytest.raises(RuntimeError, match="no_sync"):
            gradients.finish()
        gradients.close()

    well(together(1, run))


@pytest.mark.parametrize("strategy", ("int4", "rank-2-int8", "local-steps"))
def test_it_goes_on_exactly_from_its_state(strategy):
    def run(group):
        net, optimizer = trained(group, strategy, 3)
        more(net, optimizer, group, range(3, 6))
        optimizer.close()
        other, optimizer = trained(group, strategy, 3)
        optimizer = again(other, optimizer, group, strategy)
        more(other, optimizer, group, range(3, 6))
        optimizer.close()
        np.testing.assert_array_equal(flat(net), flat(other))

    well(together(2, run))


@pytest.mark.parametrize("delayed", (False, True))
def test_a_warm_up_is_sent_as_int8(delayed):
    averaging = averaging_of("rank-2")
    warms = EveryStep(averaging=averaging, warm_up=3, delayed=delayed)

    def run(group):
        net, optimizer = trained(group, warms, 6)
        assert "in the first 3 as int8" in optimizer.report()
        optimizer.finish()
        optimizer.close()
        by_hand, optimizer = trained(
            group, EveryStep(averaging=averaging_of("int8"), delayed=delayed), 3
        )
        optimizer.gradients.choose([averaging] * len(optimizer.gradients.buckets))
        more(by_hand, optimizer, group, range(3, 6))
        optimizer.finish()
        optimizer.close()
        plain, optimizer = trained(group, EveryStep(averaging=averaging, delayed=delayed), 6)
        optimizer.finish()
        optimizer.close()
        np.testing.assert_array_equal(flat(net), flat(by_hand))
        assert (flat(net) != flat(plain)).any()

    well(together(2, run))


@pytest.mark.parametrize("until", (1, 3, 5))
def test_a_warm_up_goes_on_exactly_from_its_state(until):
    strategy = EveryStep(averaging=averaging_of("rank-2"), warm_up=3)

    def run(group):
        net, optimizer = trained(group, strategy, 7)
        optimizer.close()
        other, optimizer = trained(group, strategy, until)
        optimizer = again(other, optimizer, group, strategy)
        more(other, optimizer, group, range(until, 7))
        optimizer.close()
        np.testing.assert_array_equal(flat(net), flat(other))

    well(together(2, run))


def test_a_state_of_another_strategy_or_model_is_told():
    def run(group):
        _, plain = trained(group, "int8", 1)
        _, adapts = trained(group, Adaptive(), 1)
        _, parts = trained(group, Adaptive(bucket_bytes=300), 1)
        with pytest.raises(ValueError, match="adaptive"):
            adapts.load_communication_state(plain.communication_state())
        with pytest.raises(ValueError, match="buckets"):
            parts.load_communication_state(adapts.communication_state())
        for one in (plain, adapts, parts):
            one.close()

    well(together(1, run))


def test_another_model_on_a_rank_is_told():
    def run(group):
        with PADDLE:
            net = nn.Linear(3, 3 + group.rank)
        with pytest.raises(ValueError, match=r"ranks \[1\] differ"):
            wrap(net, paddle.optimizer.SGD(parameters=net.parameters()), group, "bf16")

    well(together(2, run))


def test_names_of_strategies_are_checked():
    with pytest.raises(ValueError, match="choose one of"):
        wrap(model(), None, None, "fast")
    with pytest.raises(ValueError, match="look"):
        Adaptive(look=0)
    with pytest.raises(ValueError, match="most_left"):
        Adaptive(most_left=2.0)
    with pytest.raises(ValueError, match="warm_up must be 0 or more"):
        EveryStep(warm_up=-1)
    with pytest.raises(ValueError, match="one of its own"):
        EveryStep(averaging=averaging_of("dgc-1%"), warm_up=3)
    assert averaging_of("rank-8").name == "rank 8"


def test_mistakes_are_told():
    def run(group):
        net = model()
        inner = paddle.optimizer.SGD(0.1, parameters=net.parameters())
        for given, words in (
            ((net, inner, group, None), "strategy must be"),
            ((inner, net, group, "bf16"), "in this order"),
            ((net, inner, group, "int9"), "adaptive, or local-steps"),
        ):
            with pytest.raises(ValueError, match=words):
                wrap(*given)
        once = wrap(net, inner, group, "bf16")
        with pytest.raises(ValueError, match="wrapped already"):
            wrap(net, once, group, "bf16")
        once.close()

    well(together(1, run))


def test_a_step_that_is_not_taken_is_forgotten():
    def run(group):
        net, optimizer = trained(group, "float32", 2)
        with PADDLE:
            (loss_of(net, [group.rank], 50) * float("nan")).backward()
        optimizer.clear_grad()
        for step in range(2, 5):
            with PADDLE:
                loss_of(net, [group.rank], step).backward()
            optimizer.step()
            optimizer.clear_grad()
        optimizer.close()
        return flat(net)

    np.testing.assert_allclose(well(together(2, run))[1], trained_alone(range(2), 5), atol=2e-5)


@pytest.mark.parametrize("name", ("float32", "local-steps"))
def test_statistics_of_normalisation_are_the_same_at_the_end(name):
    def run(group):
        with PADDLE:
            net = nn.Sequential(nn.Linear(12, 6), nn.BatchNorm1D(6), nn.Linear(6, 3))
        optimizer = wrap(net, paddle.optimizer.SGD(0.1, parameters=net.parameters()), group, name)
        for step in range(3):
            with PADDLE:
                loss_of(net, [group.rank], step).backward()
            optimizer.step()
            optimizer.clear_grad()
        before = net[1]._mean.numpy()
        optimizer.finish()
        optimizer.close()
        return before, net[1]._mean.numpy(), flat(net)

    (one, mean, whole), (other, _, same) = well(together(2, run))
    np.testing.assert_allclose(mean, (one + other) / 2, atol=1e-6)
    np.testing.assert_array_equal(whole, same)
    assert (one != other).any()


def test_two_models_of_one_group_travel_beside_each_other():
    """As a generator and its critic do, step by step."""

    def run(group):
        nets = [model(seed) for seed in (0, 1)]
        strategy = EveryStep(averaging=averaging_of("int8"), bucket_bytes=300)
        optimizers = [
            wrap(net, paddle.optimizer.SGD(0.1, parameters=net.parameters()), group, strategy)
            for net in nets
        ]
        for step in range(4):
            for net, optimizer in zip(nets, optimizers):
                with PADDLE:
                    loss_of(net, [group.rank], step).backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.clear_grad()
        for optimizer in optimizers:
            optimizer.finish()
            optimizer.close()
        return np.concatenate([flat(net) for net in nets])

    one, other = well(together(2, run))
    np.testing.assert_array_equal(one, other)
    assert not np.allclose(one[: one.size // 2], one[one.size // 2 :])


def test_abort_of_the_group_ends_what_travels():
    def run(group):
        net = model()
        gradients = Gradients(list(net.parameters()), group, Exact(), bucket_bytes=300)
        assert gradients.lanes > 1
        if group.rank == 1:  # which never sends
            group.abort("no disk left")
            return "aborted"
        with PADDLE:
            loss_of(net, [0], 0).backward()
        with pytest.raises(Aborted, match="no disk left"):
            gradients.finish()
        gradients.close()
        return "told"

    assert well(together(2, run)) == ["told", "aborted"]


@pytest.mark.parametrize(
    "way", ("float32", "int8", "chunk-top", "dgc-10%", "hosts-chunk-top", "hosts-dgc-10%")
)
@pytest.mark.parametrize("begun", (True, False))
def test_a_step_that_is_computed_again_in_another_group_is_as_if_it_were_the_first(way, begun):
    """`begun`: whether the step that is computed again was sent before the group was left."""

    def run(group):
        def train(anew):
            net = model()
            optimizer = paddle.optimizer.SGD(0.1, parameters=net.parameters())
            gradients = Gradients(
                list(net.parameters()), group, averaging_of(way), bucket_bytes=600, restorable=True
            )
            for step in range(4):
                if step == anew:
                    if begun:
                        with PADDLE:
                            loss_of(net, [group.rank], step).backward()
                        gradients.finish()
                        optimizer.clear_grad()
                    gradients.move(group.subgroup(range(group.size), f"next {begun}"), step)
                with PADDLE:
                    loss_of(net, [group.rank], step).backward()
                gradients.finish()
                optimizer.step()
                optimizer.clear_grad()
            gradients.close()
            return flat(net)

        return train(anew=None), train(anew=2)

    for plain, anew in well(together(2, run)):
        # What an owner of int8's slices has left is in this rank's own part then: it is rounded otherwise.
        np.testing.assert_allclose(anew, plain, rtol=0, atol=1e-3 if way == "int8" else 0)
