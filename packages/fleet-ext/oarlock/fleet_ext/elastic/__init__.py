"""Training that goes on when machines do not: nodes that are lost are replaced, and nobody starts again.

>>> with Session(store, listener, token=token, node=socket.gethostname(), size=Size(least=2, most=4)) as session:
...     session.run(training, steps=10_000)
"""

from oarlock.fleet_ext.elastic.epochs import Epoch, Size, following
from oarlock.fleet_ext.elastic.membership import Membership
from oarlock.fleet_ext.elastic.saved_training import SavedTraining, restore
from oarlock.fleet_ext.elastic.session import Recovery, Session, Training
from oarlock.fleet_ext.elastic.stragglers import Patience

__all__ = [
    "Epoch",
    "Membership",
    "Patience",
    "Recovery",
    "SavedTraining",
    "Session",
    "Size",
    "Training",
    "following",
    "restore",
]
