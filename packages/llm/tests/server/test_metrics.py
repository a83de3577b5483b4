"""Numbers of a real engine for Prometheus."""

from prometheus_client.parser import text_string_to_metric_families

from oarlock.llm.engine import EngineConfig, open_service


def test_every_number_of_the_engine_has_its_kind_and_meaning(fixtures):
    from oarlock.llm.server import Limits
    from oarlock.llm.server.gate import Gate
    from oarlock.llm.server.metrics import Metrics

    llama, config = fixtures / "llama", EngineConfig(threads=1)
    service = open_service(llama, draft=llama, config=config, ranks=2)
    try:
        text = Metrics(service, Gate(Limits())).text().decode()
    finally:
        service.close()
    families = list(text_string_to_metric_families(text))
    ours = {one.name: one for one in families if one.name.startswith("oarlock_engine_")}
    assert {one.type for one in ours.values()} == {"counter", "gauge"}
    assert len({one.documentation for one in ours.values()}) == len(ours)
    for name in ("tokens_guessed", "draft_busy_seconds", "rank_exchanges"):
        assert ours[f"oarlock_engine_{name}"].type == "counter"
    for name in ("cache_pages_used", "draft_pages_used", "failed"):
        assert ours[f"oarlock_engine_{name}"].type == "gauge"
    assert "oarlock_engine_busy_seconds_total " in text
