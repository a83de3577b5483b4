"""Adapters of a real engine behind OpenAI's interface."""

import pytest
from starlette.testclient import TestClient


@pytest.fixture
def client(fixtures):
    from oarlock.llm.engine import open_service
    from oarlock.llm.server import create_app

    service = open_service(fixtures / "llama", adapters={"tuned": fixtures / "llama-lora"})
    with TestClient(create_app(service)) as client:
        client.service = service
        yield client
    service.close()


def test_the_model_of_a_request_names_an_adapter(client, fixtures):
    from oarlock.llm.engine import LLM, SamplingParams

    listed = client.get("/v1/models").json()["data"]
    assert [(one["id"], one["parent"]) for one in listed] == [("llama", None), ("tuned", "llama")]
    llm = LLM(fixtures / "llama", adapters={"tuned": fixtures / "llama-lora"})
    params = SamplingParams(temperature=0.0, max_tokens=12)
    texts = {}
    for model, name in (("llama", None), ("tuned", "tuned")):
        body = {"model": model, "prompt": [5, 17, 3], "max_tokens": 12, "temperature": 0}
        answer = client.post("/v1/completions", json=body).json()
        texts[model] = answer["choices"][0]["text"]
        assert answer["model"] == model
        assert texts[model] == llm.generate([[5, 17, 3]], params, adapter=name)[0].text
    assert texts["llama"] != texts["tuned"]


def test_what_is_loaded_while_the_server_runs_is_there(client, fixtures):
    body = {"model": "late", "prompt": "a", "max_tokens": 2}
    missing = client.post("/v1/completions", json=body)
    assert missing.status_code == 404 and "llama, tuned" in missing.json()["error"]["message"]
    client.service.load_adapter("late", fixtures / "llama-lora")
    assert client.post("/v1/completions", json=body).status_code == 200
    client.service.unload_adapter("late")
    assert client.post("/v1/completions", json=body).status_code == 404
