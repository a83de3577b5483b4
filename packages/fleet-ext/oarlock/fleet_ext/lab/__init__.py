"""An emulated cluster on one Linux machine: hosts in network namespaces, shaped links, and faults.

    from oarlock.fleet_ext import lab

    with lab.Lab(hosts=4, rate=100e6, delay=0.01) as cluster:
        workers = [host.start(argv, log=f"worker{host.index}.log") for host in cluster.hosts]
        cluster.partition([0, 1], [2, 3])
        workers[3].stop()
        cluster.heal()

Processes are real and have IP stacks of their own; rates, delays and CPU quotas are real too, so
what is measured here is *emulated*, not simulated. The congestion control of TCP is that of the
machine. Root is needed, and `iproute2`. The machine's own
interfaces, routes and firewall stay as they are: even the switch is in a namespace of its own.

When a lab ends, by whatever way, so does everything in it. A keeper (a small process beside the lab)
waits for the end of the lab's owner, SIGKILL included, then ends the processes and removes the rest;
should the keeper have been killed as well, `clean` does that.
"""

from oarlock.fleet_ext.lab.cluster import Lab, unavailable
from oarlock.fleet_ext.lab.commands import LabUnavailable
from oarlock.fleet_ext.lab.disk import Disk
from oarlock.fleet_ext.lab.host import Host
from oarlock.fleet_ext.lab.keeper import clean
from oarlock.fleet_ext.lab.process import Process

__all__ = ["Disk", "Host", "Lab", "LabUnavailable", "Process", "clean", "unavailable"]
