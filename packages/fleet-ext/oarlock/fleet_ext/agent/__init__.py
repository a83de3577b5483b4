"""A node's agent: starts its training process, and starts it again when it dies or hangs.

    oarlock-fleet agent --store 10.0.0.1:7000 --token-file token --node host-3 --least 2 --most 4 -- python train.py

and in train.py

>>> with enter() as session:
...     session.run(training, steps=10_000)
"""

from oarlock.fleet_ext.agent.cluster import Cluster
from oarlock.fleet_ext.agent.entering import Drained, NodeSession, enter
from oarlock.fleet_ext.agent.place import NodePlace
from oarlock.fleet_ext.agent.supervising import Agent, GaveUp, Policy

__all__ = [
    "Agent",
    "Cluster",
    "Drained",
    "GaveUp",
    "NodePlace",
    "NodeSession",
    "Policy",
    "enter",
]
