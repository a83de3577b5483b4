"""Inference replicas behind a router: those that die or hang are replaced, and no request is lost.

>>> agent = Agent(store, Command(argv=("oarlock-llm", "serve", "model", "--port", "{port}")), node="host-3",
...               replicas=3, spares=1)
>>> Server(Router(store), port=8000).serve_here()
"""

from oarlock.fleet_ext.serving.agent import Agent
from oarlock.fleet_ext.serving.crew import NeverAnswered, Patience
from oarlock.fleet_ext.serving.process import Command
from oarlock.fleet_ext.serving.records import Fleet, Replica, View
from oarlock.fleet_ext.serving.router import Router
from oarlock.fleet_ext.serving.routing import Routing
from oarlock.fleet_ext.serving.server import Server

__all__ = [
    "Agent",
    "Command",
    "Fleet",
    "NeverAnswered",
    "Patience",
    "Replica",
    "Router",
    "Routing",
    "Server",
    "View",
]
