"""A training script for agents: least squares by NumPy, with a line of JSON for each step.

Called with steps and seconds of a step, and what goes wrong, in the first process of a node that has it in its name:
"hangs" stops computing for good at step 20.
"""

import json
import sys
import threading

from oarlock.fleet_ext.agent import enter

from elastic_node import Model

HANGS_AT = 20


def main(steps, seconds, operation):
    with enter(lease=1.0, operation=operation) as session:
        first = session.membership.node.endswith(".1")

        def started(step):
            if first and "hangs" in session.membership.node and step == HANGS_AT:
                threading.Event().wait()

        model = Model(seconds, started)

        def after(step):
            said = {
                "step": step,
                "sum": float(model.weights.sum()),
                "ranks": len(session.recoveries[-1].epoch.nodes),
            }
            print(json.dumps(said), flush=True)

        session.run(model, steps, after=after)
    print(json.dumps({"weights": model.weights.tolist(), "steps": session.step}), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]))
