"""A node that becomes slow when the store says so, and says at the end what happened to it.

Called with the store's port, its name, least and most nodes, steps, and seconds for which it rests when it is put out. Waits
for `go/STEP` in the store before each step in `hold`. `slow` in the store is [node or "all", "work" or "link", epoch].
"""

import json
import socket
import sys
import time

import numpy as np
from elastic_node import Model
from oarlock.fleet_ext.elastic import Patience, Session, Size
from oarlock.fleet_ext.rendezvous import TcpStore
from oarlock.fleet_ext.transport import Listener

WIDTH = 150_000
HOLD = (5, 30)
WORK_S, RATE = (
    0.5,
    250_000,
)  #: of a step that is slow, and bytes a second of each way of a link that is
PACING = 47  #: SO_MAXPACING_RATE, which the socket module does not name


class Wide(Model):
    """Large enough for its messages to take their time, and without products, whose bits depend on threads."""

    def __init__(self):
        super().__init__(width=WIDTH)

    def compute(self, step, group):
        self.mean = gradient(self.weights, group.rank, step)
        group.all_reduce(self.mean, "mean").wait()


def gradient(weights, rank, step):
    return weights - np.random.default_rng([rank, step]).random(weights.size, np.float32)


def main(port, name, least, most, steps, rest):
    store = TcpStore("127.0.0.1", port, job="test", token="token")
    listener = Listener(job="test", token="token", shared=False)
    model = Wide()
    compute = model.compute

    def slowly(step, group):
        if step in HOLD:
            store.wait([f"go/{step}"], 120.0)
        said = store.get("slow")
        if said is not None:
            node, part, epoch = json.loads(said)
            if node in (name, "all") and group.name == f"epoch {epoch}":
                if part == "work":
                    time.sleep(WORK_S)
                else:
                    for links in group.mesh._outgoing.values():
                        for link in links:
                            link._socket.setsockopt(socket.SOL_SOCKET, PACING, RATE)
        compute(step, group)

    model.compute = slowly
    patience = Patience(factor=3.0, seconds=1.0, steps=3, rest=rest)
    with Session(
        store, listener, token="token", node=name, size=Size(least=least, most=most), lease=3.0,
        operation=60.0, patience=patience,
    ) as session:  # fmt: skip
        session.run(model, steps, after=lambda step: print(f"step {step}", flush=True))
        found = [
            [one.why, one.step, one.epoch.number, len(one.epoch.nodes), one.seconds]
            for one in session.recoveries
        ]
    weights = model.weights.tobytes().hex()
    print(json.dumps({"weights": weights, "step": session.step, "recoveries": found}), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:6]), float(sys.argv[6]))
