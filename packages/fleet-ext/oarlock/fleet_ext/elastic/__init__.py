"""Training that goes on when machines do not: nodes that are lost are replaced, and nobody starts again.

>>> with Session(store, listener, token=token, node=socket.gethostname(), size=Size(least=2, most=4)) as session:
...     session.run(training, steps=10_000)
"""

from oarlock.fleet_ext.elastic.epochs import Epoch, Size, following
from oarlock.fleet_ext.elastic.membership import Membership
from oarlock.fleet_ext.elastic.session import Recovery, Session, Training

__all__ = ["Epoch", "Membership", "Recovery", "Session", "Size", "Training", "following"]
