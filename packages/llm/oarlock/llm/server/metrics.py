"""Numbers for Prometheus."""

from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    UntypedMetricFamily,
)
from prometheus_client.registry import Collector

from oarlock.llm.engine.service import Service
from oarlock.llm.server.gate import Gate

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)
SHORT = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)

#: What the engine has counted since its start, by the names of its ``stats``: name of the metric (which gets
#: "_total") and what it is.
COUNTED = {
    "steps": ("steps", "Calls of the model."),
    "prompt_tokens": ("prompt_tokens", "Tokens of prompts that were taken in."),
    "cached_tokens": ("cached_tokens", "Tokens of prompts that were found in the cache."),
    "tokens_generated": ("tokens_generated", "Tokens that were drawn."),
    "tokens_guessed": (
        "tokens_guessed",
        "Tokens that were guessed, by a draft or from repetitions.",
    ),
    "guesses_right": ("guesses_right", "Guessed tokens that were drawn then."),
    "requests_finished": ("requests_finished", "Requests whose texts have all ended."),
    "preemptions": ("preemptions", "Texts that had to give their pages to others for a while."),
    "busy_s": ("busy_seconds", "Time in steps."),
    "draft_steps": ("draft_steps", "Calls of the draft."),
    "draft_busy_s": ("draft_busy_seconds", "Time in the draft."),
    "rank_exchanges": ("rank_exchanges", "Exchanges of parts between ranks."),
    "rank_bytes": ("rank_bytes", "Bytes of the first rank's parts."),
    "rank_waited_s": ("rank_waited_seconds", "Time the first rank spent on exchanges."),
}
#: Numbers of the moment.
MOMENTARY = {
    "requests_running": "Texts that are being written.",
    "requests_waiting": "Texts that wait for their turn.",
    "cache_pages": "Pages of the cache.",
    "cache_pages_used": "Pages of the cache that texts use.",
    "draft_pages_used": "Pages of the draft's cache that texts use.",
    "failed": "1 where nothing can be computed any more, as a rank is lost.",
}


class Metrics:
    """Counters and histograms of one server, in a registry of their own.

    Args:
        service: its `stats` are shown as ``oarlock_engine_…``.
        gate: requests that run and wait.
    """

    def __init__(self, service: Service, gate: Gate):
        self._registry = CollectorRegistry()
        options: dict[str, Any] = {"registry": self._registry}
        self.requests = Counter(
            "oarlock_requests", "Requests, by route and status.", ("route", "status"), **options
        )
        self.seconds = Histogram(
            "oarlock_request_seconds",
            "From the headers to the last byte.",
            ("route",),
            buckets=SECONDS,
            **options,
        )
        self.first_token = Histogram(
            "oarlock_time_to_first_token_seconds",
            "From the body of a request to its first token, waiting included.",
            buckets=SECONDS,
            **options,
        )
        self.inter_token = Histogram(
            "oarlock_inter_token_seconds", "Between tokens of a text.", buckets=SHORT, **options
        )
        self.prompt_tokens = Counter("oarlock_prompt_tokens", "Tokens of prompts.", **options)
        self.cached_tokens = Counter(
            "oarlock_cached_prompt_tokens",
            "Tokens of prompts that were found in the cache.",
            **options,
        )
        self.completion_tokens = Counter("oarlock_completion_tokens", "Tokens of texts.", **options)
        self.cancelled = Counter(
            "oarlock_cancelled_requests", "Requests whose clients went away.", **options
        )
        self._registry.register(_Moment(service, gate))

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self._registry)


class _Moment(Collector):
    """Gauges that are read when asked for."""

    def __init__(self, service: Service, gate: Gate):
        self._service, self._gate = service, gate

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "oarlock_requests_running", "Requests that the engine works on.", self._gate.running
        )
        yield GaugeMetricFamily(
            "oarlock_requests_waiting", "Requests that wait for their turn.", self._gate.waiting
        )
        yield GaugeMetricFamily(
            "oarlock_ready", "Whether requests are taken.", not self._gate.stopping
        )
        for name, value in sorted(self._service.stats().items()):
            yield _of_engine(name, value)


def _of_engine(name: str, value: float) -> Metric:
    if name in COUNTED:
        shown, meaning = COUNTED[name]
        return CounterMetricFamily(f"oarlock_engine_{shown}", meaning, value)
    if name in MOMENTARY:
        return GaugeMetricFamily(f"oarlock_engine_{name}", MOMENTARY[name], value)
    return UntypedMetricFamily(f"oarlock_engine_{name}", f"{name}, as this service has it.", value)
