"""Requests made up from the OpenAPI description, and answers held to it."""

import pytest
from hypothesis import HealthCheck, given, settings

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
)


@pytest.fixture(scope="module")
def application():
    from oarlock_fake_service import FakeService

    from oarlock.llm.server import Limits, ServerConfig, create_app

    return create_app(FakeService(), config=ServerConfig(limits=Limits(completion_tokens=32)))


OPERATIONS = ["POST /v1/chat/completions", "POST /v1/completions", "POST /v1/embeddings"]
WITHOUT_BODY = [
    "GET /v1/models",
    "GET /health",
    "GET /health/live",
    "GET /health/ready",
    "GET /metrics",
]
POSITIVE, NEGATIVE = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE


@pytest.mark.parametrize(
    "label, mode",
    [(label, POSITIVE) for label in (*OPERATIONS, *WITHOUT_BODY, "GET /v1/models/{model}")]
    + [(label, NEGATIVE) for label in OPERATIONS],
)
def test_answers_are_as_described(fake, application, label, mode):
    described = schemathesis.openapi.from_asgi("/openapi.json", application)
    method, path = label.split()
    operation = described[path][method]
    checks = [check for check in schemathesis.checks.CHECKS.get_all() if check.__name__ in CHECKS]
    assert len(checks) == len(CHECKS)

    statuses = set()

    @settings(
        max_examples=8 if method == "POST" else 3,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case):
        if isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
            case.body["model"] = "fake/model"  # or all would be refused for it
        statuses.add(case.call_and_validate(checks=checks).status_code)

    check()
    assert 200 in statuses or mode is NEGATIVE or "{" in label
    assert 400 in statuses or mode is POSITIVE


def test_description(application):
    described = application.openapi()
    assert set(described["paths"]) == {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/models",
        "/v1/models/{model}",
        "/health",
        "/health/live",
        "/health/ready",
        "/metrics",
    }
    assert "HTTPValidationError" not in described["components"]["schemas"]
    answers = described["paths"]["/v1/chat/completions"]["post"]["responses"]
    assert set(answers) == {"200", "400", "401", "404", "408", "413", "429", "500", "503"}
    assert set(answers["200"]["content"]) == {"application/json", "text/event-stream"}
