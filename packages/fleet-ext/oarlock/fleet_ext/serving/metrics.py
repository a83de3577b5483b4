"""Numbers of a router for Prometheus."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from oarlock.fleet_ext.serving.balancing import Balancer

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)


class Metrics:
    """In a registry of its own.

    Args:
        balancer: whose replicas are shown.
    """

    def __init__(self, balancer: Balancer) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "oarlock_router_requests", "Answered requests, by status.", ("status",), registry=registry
        )  # fmt: skip
        self.seconds = Histogram(
            "oarlock_router_request_seconds", "From the headers to the last byte.",
            buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self.first = Histogram(
            "oarlock_router_first_byte_seconds", "From the headers to the first byte of the answer.",
            buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self.lost = Counter("oarlock_router_lost_attempts", "Attempts whose replica was lost.", registry=registry)  # fmt: skip
        self.hedged = Counter("oarlock_router_hedged_requests", "Requests sent to a second replica, as the first was slow.", registry=registry)  # fmt: skip
        self.resumed = Counter("oarlock_router_resumed_answers", "Answers that went on from another replica.", registry=registry)  # fmt: skip
        self.broken = Counter("oarlock_router_broken_answers", "Answers that broke off at the client.", registry=registry)  # fmt: skip
        self.gone = Counter("oarlock_router_cancelled_requests", "Requests whose clients went away.", registry=registry)  # fmt: skip
        self.answered = self.failed = (
            0  #: requests: well, and not (5xx and 429 of the router, and what broke)
        )
        registry.register(_Moment(balancer))

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self._registry)


class _Moment(Collector):
    """Gauges, read when asked for."""

    def __init__(self, balancer: Balancer) -> None:
        self._balancer = balancer

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield GaugeMetricFamily("oarlock_router_waiting", "Requests that wait.", self._balancer.waiting)  # fmt: skip
        running = GaugeMetricFamily("oarlock_router_running", "Requests at a replica.", labels=("replica", "state"))  # fmt: skip
        for id, use in self._balancer.uses().items():
            running.add_metric((id, use.state), use.running)
        yield running
