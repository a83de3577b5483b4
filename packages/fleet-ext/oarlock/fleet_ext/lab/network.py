"""The network of a lab: hosts around a switch, each in a network namespace of its own.

    host i:   eth0  10.77.0.(i+1)/24                  switch:   h0, h1, …  10.77.0.254

The switch routes, so a host reaches the others through it, and nothing else. A host's upload is
shaped on its own end of the link, its download on the switch's. With a delay, what the switch gets
from a host goes through a user-space router (`router`) before it is routed on. Broadcasts do not
pass. Labs have the same addresses and cannot see each other, nor the machine's own network.
"""

import subprocess
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from oarlock.fleet_ext.lab import router
from oarlock.fleet_ext.lab.commands import CommandError, batch, run, tool
from oarlock.fleet_ext.lab.drops import by_chance, to_any_of

SUBNET = "10.77.0.0/24"
GATEWAY = "10.77.0.254"
MOST_HOSTS = 250
#: The routing table for what comes from hosts, when there is a delay.
DELAYED = 100
#: Seconds of traffic that may pass at once, and that may wait, on a shaped link.
BURST, QUEUE = 0.0025, 0.05
#: Bytes, the least for each: a few packets.
LEAST_BURST, LEAST_QUEUE = 5_000, 30_000
#: The switch forwards, whichever way a packet came.
FORWARDING = """
cd /proc/sys/net/ipv4
echo 1 >ip_forward
echo 0 >conf/all/rp_filter
echo 0 >conf/default/rp_filter
"""


class Network:
    """Commands for one network. They raise CommandError where the machine refuses.

    Args:
        name: what the namespaces' names begin with.
        hosts: how many.
    """

    def __init__(self, name: str, hosts: int) -> None:
        self.hosts = range(hosts)
        self.switch = f"{name}-switch"
        self.spaces = [f"{name}-h{host}" for host in self.hosts]
        self.addresses = [f"10.77.0.{host + 1}" for host in self.hosts]

    def build(self) -> None:
        """Makes namespaces, links and routes; links are not shaped."""
        for space in [self.switch, *self.spaces]:
            run([tool("ip"), "netns", "add", space])
        run([tool("ip"), "netns", "exec", self.switch, "sh", "-ec", FORWARDING])
        lines = ["link set lo up"]
        for host, space in enumerate(self.spaces):
            lines += [
                f"link add h{host} type veth peer name eth0 netns {space}",
                f"addr add {GATEWAY}/32 dev h{host}",
                # While the link is down this drops what is for the host, without a word to the sender.
                f"route add blackhole {self.addresses[host]} metric 1000",
                *self._up(host),
            ]
        batch("ip", self.switch, lines)
        batch("tc", self.switch, [f"qdisc add dev h{host} clsact" for host in self.hosts])
        for host, space in enumerate(self.spaces):
            lines = [
                "link set lo up",
                f"addr add {self.addresses[host]}/24 dev eth0 noprefixroute",
                "link set eth0 up",
                f"route add {GATEWAY} dev eth0",
                f"route add {SUBNET} via {GATEWAY}",
            ]
            batch("ip", space, lines)
            batch("tc", space, ["qdisc add dev eth0 clsact"])
            self.lose(host, 0.0)
        self.block([()] * len(self.hosts))

    def add_delay(self, seconds: float) -> subprocess.Popen[str]:
        """Starts the router, which lives until it is killed.

        Raises:
            CommandError: there is no TUN device.
        """
        script = Path(router.__file__).resolve()
        command = [tool("ip"), "netns", "exec", self.switch]
        process = subprocess.Popen(
            [*command, sys.executable, "-I", "-S", str(script), repr(seconds)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd="/",
            start_new_session=True,
        )
        assert process.stdout is not None
        first = process.stdout.readline()
        if first != "ready\n":
            words = (first + process.stdout.read()).strip().splitlines()
            process.wait()
            raise CommandError(f"the router that delays packets: {' '.join(words[-1:])}")
        lines = [
            f"link set {router.DEVICE} txqueuelen 10000 up",
            f"route add default dev {router.DEVICE} table {DELAYED}",
            *(f"rule add iif h{host} lookup {DELAYED}" for host in self.hosts),
        ]
        batch("ip", self.switch, lines)
        return process

    def shape(self, host: int, rate: float | None) -> None:
        """Limits both directions of a host's link to `rate` bit/s; None for no limit."""
        discipline = "noqueue"
        if rate is not None:
            burst = max(round(rate / 8 * BURST), LEAST_BURST)
            limit = max(round(rate / 8 * QUEUE), LEAST_QUEUE)
            discipline = f"tbf rate {round(rate)}bit burst {burst} limit {limit}"
        batch("tc", self.switch, [f"qdisc replace dev h{host} root {discipline}"])
        batch("tc", self.spaces[host], [f"qdisc replace dev eth0 root {discipline}"])

    def link(self, host: int, up: bool) -> None:
        """Plugs a host's cable in, or pulls it out."""
        batch("ip", self.switch, self._up(host) if up else [f"link set h{host} down"])

    def block(self, blocked: Sequence[Collection[str]]) -> None:
        """Drops what host i sends to the addresses ``blocked[i]``, in place of those before."""
        lines = [filter_line(f"h{host}", 1, to_any_of(blocked[host])) for host in self.hosts]
        batch("tc", self.switch, lines)

    def lose(self, host: int, fraction: float) -> None:
        """Drops that fraction of what a host sends, and of what it gets."""
        segments = 1 if fraction else 65535  # lose packets, not transfers of 64 kB
        for space, device in ((self.switch, f"h{host}"), (self.spaces[host], "eth0")):
            batch("ip", space, [f"link set {device} gso_max_segs {segments}"])
            batch("tc", space, [filter_line(device, 2, by_chance(fraction))])

    def _up(self, host: int) -> list[str]:
        return [f"link set h{host} up", f"route replace {self.addresses[host]} dev h{host}"]


def filter_line(device: str, place: int, code: str) -> str:
    """The command for `tc` that puts a program in its place, or in that of the one that is there."""
    where = f"dev {device} ingress pref {place} handle 1 protocol ip"
    return f"filter replace {where} bpf direct-action bytecode '{code}'"
