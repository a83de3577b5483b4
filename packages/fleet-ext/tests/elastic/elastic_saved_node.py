"""A node that saves its state, and dies where it is told to.

Called with the store's port, its name, least and most nodes, steps, and JSON: the `folder`; whether it is `shared`; and who
dies, as {node: [where, step]}: "before" it takes the step, "between" that and saving, or when the step is "saved".
"""

import json
import os
import signal
import sys
from pathlib import Path

from elastic_node import Model
from oarlock.fleet_ext.elastic import SavedTraining, Session, Size
from oarlock.fleet_ext.rendezvous import TcpStore
from oarlock.fleet_ext.transport import Listener


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def main(port, name, least, most, steps, told):
    where, when = told["die"].get(name, [None, None])
    store = TcpStore("127.0.0.1", port, job="test", token="token")
    model = Model()
    take = model.apply

    def apply(step):
        if when == step and saved.saving is not None:
            saved.saving.wait()  # of an earlier step, which is there whatever the machine has to do
        if (where, when) == ("before", step):
            die()
        take(step)
        if (where, when) == ("between", step):
            die()

    model.apply = apply
    folder = Path(told["folder"]) / ("shared" if told["shared"] else name)
    saved = SavedTraining(model, folder, every=4, shared=told["shared"])
    first = saved.restore()

    def after(step):
        print(f"step {step}", flush=True)
        if (where, when) == ("saved", step):
            saved.close()
            die()

    with Session(
        store, Listener(job="test", token="token"), token="token", node=name,
        size=Size(least=least, most=most), lease=3.0, patience=None,
    ) as session:  # fmt: skip
        session.run(saved, steps, first=first, after=after)
        began = [one.step for one in session.recoveries]
        saved.close()
    said = {"weights": model.weights.tolist(), "first": first, "recoveries": began}
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:6]), json.loads(sys.argv[6]))
