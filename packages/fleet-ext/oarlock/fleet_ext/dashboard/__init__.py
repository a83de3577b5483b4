"""A page that shows a job: who is in it, how fast it trains, what happened, and the replicas that it serves.

>>> dashboard = serve(store, port=8080)                        # beside the caller; at http://127.0.0.1:8080
>>> dashboard.close()
"""

from oarlock.fleet_ext.dashboard.app import Dashboard, serve
from oarlock.fleet_ext.dashboard.snapshot import snapshot

__all__ = ["Dashboard", "serve", "snapshot"]
