"""What running processes say of themselves, kept in the job's store for whoever looks.

>>> publisher = Publisher(store, node="host-3")
>>> publisher.step(step, loss=loss)                            # after each step; costs microseconds
>>> publisher.event("checkpoint", "step 5000 saved")
"""

from oarlock.fleet_ext.telemetry.events import Event, Events, read_events
from oarlock.fleet_ext.telemetry.publishing import Publisher

__all__ = ["Event", "Events", "Publisher", "read_events"]
