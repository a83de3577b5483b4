"""Constraints of a real engine behind OpenAI's interface."""

import pytest
from starlette.testclient import TestClient


@pytest.fixture(scope="module")
def client(fixtures):
    from oarlock.llm.engine import open_service
    from oarlock.llm.server import create_app

    service = open_service(fixtures / "llama")
    with TestClient(create_app(service)) as client:
        yield client
    service.close()


SCHEMA = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "foo"}}}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "fields",
    [
        {"guided_regex": "(["},
        {"guided_json": {"type": "foo"}},
        {"guided_grammar": "start: foo"},
        {"response_format": SCHEMA},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_what_cannot_be_read_is_refused(client, fields, stream):
    body = {"model": "llama", "prompt": [5, 17, 3], "max_tokens": 4, "stream": stream}
    answer = client.post("/v1/completions", json=body | fields)
    assert answer.status_code == 400, answer.text
    assert "constraint cannot be read" in answer.json()["error"]["message"]


def test_of_several_prompts_too(client):
    body = {"model": "llama", "prompt": [[5, 17], [3]], "max_tokens": 4}
    assert client.post("/v1/completions", json=body | {"guided_regex": "(["}).status_code == 400
    answer = client.post("/v1/completions", json=body | {"guided_regex": "[a-z ]*"})
    assert answer.status_code == 200 and len(answer.json()["choices"]) == 2
