"""One model, trained on several ranks in threads."""

import threading
from io import BytesIO

import numpy as np
import paddle
from oarlock.fleet_ext.compress import wrap
from paddle import nn

PADDLE = threading.Lock()  #: one rank at a time: Paddle's seeds and tracer belong to the process


def model(seed=0):
    with PADDLE:
        paddle.seed(seed)
        return nn.Sequential(
            nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 3)
        )


def batch(rank, step):
    rng = np.random.default_rng([rank, step])
    return paddle.to_tensor(rng.standard_normal((4, 12)).astype("float32")), rng.standard_normal(
        (4, 3)
    ).astype("float32")


def loss_of(net, ranks, step):
    losses = []
    for rank in ranks:
        features, wanted = batch(rank, step)
        losses.append(paddle.square(net(features) - paddle.to_tensor(wanted)).mean())
    return sum(losses) / len(losses)


def flat(net):
    return np.concatenate([one.numpy().reshape(-1) for one in net.parameters()])


def trained_alone(ranks, steps, rate=0.05):
    net = model()
    optimizer = paddle.optimizer.AdamW(rate, parameters=net.parameters())
    for step in range(steps):
        loss_of(net, ranks, step).backward()
        optimizer.step()
        optimizer.clear_grad()
    return flat(net)


def trained(group, strategy, steps, *, rate=0.05, parts=1):
    """Parameters, and the wrapped optimizer."""
    net = model(seed=group.rank)  # rank 0's are taken
    optimizer = wrap(
        net, paddle.optimizer.AdamW(rate, parameters=net.parameters()), group, strategy
    )
    for step in range(steps):
        for part in range(parts - 1):
            with optimizer.no_sync(), PADDLE:
                (loss_of(net, [group.rank], 100 * part + step) / parts).backward()
        with PADDLE:
            loss = loss_of(net, [group.rank], 100 * (parts - 1) + step) / parts
            loss.backward()
        optimizer.step()
        optimizer.clear_grad()
    return net, optimizer


def more(net, optimizer, group, steps):
    for step in steps:
        with PADDLE:
            loss_of(net, [group.rank], step).backward()
        optimizer.step()
        optimizer.clear_grad()


def again(net, optimizer, group, strategy):
    """Wraps what was wrapped anew, which goes on from its state."""
    file = BytesIO()
    np.savez(file, **optimizer.communication_state())
    weights = {name: one.clone() for name, one in net.state_dict().items()}
    optimizer.close()
    wrapped = wrap(net, optimizer.inner, group, strategy)
    net.set_state_dict(weights)  # ranks' own, with local steps
    file.seek(0)
    wrapped.load_communication_state(np.load(file))
    return wrapped
