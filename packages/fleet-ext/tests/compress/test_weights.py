"""What errors of a gradient are to an optimizer."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import paddle
import pytest
from oarlock.fleet_ext.compress import Adaptive, averaging_of, buckets
from oarlock.fleet_ext.compress.trials import Sample, tried
from oarlock.fleet_ext.compress.weights import weights_behind
from oarlock.fleet_ext.transport import Mesh, MeshGroup
from oarlock.fleet_ext.transport.arrays import view_of
from paddle import nn

from ranks import together, well

_PADDLE = threading.Lock()  # one rank at a time: Paddle's seeds and tracer belong to the process


def trained(kind, steps=3, **options):
    """An optimizer, its parameters, and their gradients of the last step and of all."""
    paddle.seed(0)
    net = nn.Sequential(nn.Linear(40, 30), nn.Linear(30, 20))
    optimizer = getattr(paddle.optimizer, kind)(0.01, parameters=net.parameters(), **options)
    seen = []
    for step in range(steps):
        features = np.random.default_rng(step).standard_normal((8, 40)).astype("float32")
        optimizer.clear_grad()
        paddle.square(net(paddle.to_tensor(features))).mean().backward()
        optimizer.step()
        seen.append(np.concatenate([view_of(one.grad).reshape(-1) for one in net.parameters()]))
    return optimizer, net.parameters(), seen


@pytest.mark.parametrize("kind", ("SGD", "Momentum"))
def test_where_steps_are_gradients_all_count_alike(kind):
    optimizer, parameters, seen = trained(kind)
    assert weights_behind(optimizer, parameters, seen[-1]) is None


@pytest.mark.parametrize(
    ("kind", "options", "decay"),
    [("Adam", {}, 0.999), ("AdamW", {"beta2": 0.9}, 0.9), ("RMSProp", {"rho": 0.95}, 0.95)],
)
def test_errors_count_by_what_they_are_divided_by(kind, options, decay):
    optimizer, parameters, seen = trained(kind, **options)
    squares = np.zeros_like(seen[0])
    for one in seen:
        squares = decay * squares + (1 - decay) * one * one
    weights = weights_behind(optimizer, parameters, seen[-1])
    begin = 0
    for parameter in parameters:
        place = slice(begin, begin := begin + parameter.size)
        size = np.sqrt(squares[place])
        np.testing.assert_allclose(weights[place], (size + 0.01 * size.mean()) ** -2, rtol=1e-3)
    assert len(weights) == begin


def test_of_an_unknown_optimizer_gradients_are_what_it_divides_by():
    optimizer, parameters, seen = trained("Adamax")
    seen[-1][:1200] = 0.0
    weights = weights_behind(optimizer, parameters, seen[-1])
    size = np.abs(seen[-1][1230:1830])
    np.testing.assert_allclose(weights[1230:1830], (size + 0.01 * size.mean()) ** -2, rtol=1e-5)
    assert np.isfinite(weights).all() and (weights > 0).all()


def test_a_sign_for_many_elements_is_wrong_behind_adam():
    optimizer, parameters, seen = trained("Adam")
    shapes = [tuple(one.shape) for one in parameters]
    weighted = Sample(shapes, seen[-1], weights_behind(optimizer, parameters, seen[-1]))
    left = {name: tried(averaging_of(name), weighted, 4).left for name in ("int8", "int4", "1-bit")}
    assert left["int8"] < left["int4"] < Adaptive().most_left < left["1-bit"]


def test_a_sample_is_of_the_largest_tensors(monkeypatch):
    """What is tried, and how large all of the bucket is."""
    monkeypatch.setattr(buckets, "SAMPLE", 1000)
    optimizer, parameters, seen = trained("Adam")
    with Mesh(0, 1) as mesh, MeshGroup(mesh, [0], "one") as alone:
        bucket = buckets.Bucket(parameters, 0, alone, averaging_of("float32"))
        bucket.keep()
        found = buckets.samples_of([bucket], optimizer, alone)[0]
        assert list(found.shapes) == [(40, 30)] and list(found.others) == [(30,), (30, 20), (20,)]
        np.testing.assert_allclose(found.gradient, seen[-1][:1200], rtol=2**-8)
        np.testing.assert_array_equal(
            found.weights, weights_behind(optimizer, parameters[:1], found.gradient)
        )
        assert found.scale == pytest.approx(1850 / 1200)
        trial = tried(averaging_of("float32"), found, 4)
        assert trial.traffic == averaging_of("float32").traffic(found.bucket, 4) and trial.left == 0
        optimizer.clear_grad(set_to_zero=False)
        bucket.keep()
        assert not buckets.samples_of([bucket], optimizer, alone)[0].gradient.any()
        bucket.close()


def test_ranks_share_the_samples():
    def run(group):
        with _PADDLE:
            optimizer, parameters, _ = trained("Adam")
        made = [
            buckets.Bucket([one], number, group, averaging_of("int8"))
            for number, one in enumerate(parameters[:3])
        ]
        for step in range(2):
            for number, bucket in enumerate(made):
                view_of(bucket.parameters[0].grad)[...] = 16 * number + 4 * step + group.rank
                bucket.keep()
        found = buckets.samples_of(made, optimizer, group)
        for bucket in made:
            bucket.close()
        return found

    one, other = well(together(2, run))
    assert list(one) == [0, 2] and list(other) == [1]
    for number, sample in {**one, **other}.items():
        (before,) = sample.earlier
        assert (before == 16 * number + 0.5).all() and (sample.gradient == before + 4).all()
        assert sample.gradient.size == (1200, 30, 600)[number]


def test_a_sample_is_the_mean_of_what_ranks_had_not_of_what_codes_left(monkeypatch):
    monkeypatch.setattr(buckets, "SAMPLE", 1000)

    def run(group):
        with _PADDLE:
            optimizer, parameters, _ = trained("Adam")
        own = np.random.default_rng(group.rank).standard_normal((5, 1850)).astype("float32")
        bucket = buckets.Bucket(parameters, 0, group, averaging_of("1-bit"))
        with ThreadPoolExecutor(1) as thread:
            for step, gradient in enumerate(own):
                if step == 1:
                    bucket.watch()
                begin = 0
                for index, one in enumerate(parameters):
                    view_of(one.grad).reshape(-1)[...] = gradient[begin : begin + one.size]
                    begin += one.size
                    bucket.take(index)
                bucket.send(thread, step)
                if step == 3:
                    bucket.drop()  # a step that is not taken
                bucket.receive(behind=0)
        found = buckets.samples_of([bucket], optimizer, group)
        bucket.keep()
        coded = view_of(parameters[0].grad).reshape(-1).copy()
        again = buckets.samples_of([bucket], optimizer, group)
        bucket.close()
        return own[:, :1200], coded, found.values(), again.values()

    ranks = well(together(2, run))
    means = (ranks[0][0] + ranks[1][0]) / 2
    assert not ranks[1][2] and not ranks[1][3]  # who does not try has no sample
    for _, coded, (found,), (again,) in [ranks[0]]:
        assert len(found.earlier) == buckets.WATCHED - 1 and not again.earlier
        for number, one in zip((1, 2, 4), (*found.earlier, found.gradient)):
            np.testing.assert_allclose(one, means[number], atol=0.02)
        np.testing.assert_allclose(again.gradient, coded, rtol=2**-8)
        assert np.abs(coded - means[4]).max() > 0.1
