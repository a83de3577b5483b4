"""What is refused: the right status, in OpenAI's shape, with the field and the remedy."""

import json
import logging

import httpx
import pytest

TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
NAMED = {"type": "function", "function": {"name": "g"}}


def check(response, status, message, *, param=None, code=None):
    error = response.json()["error"]
    assert response.status_code == status, error
    assert set(error) == {"message", "type", "param", "code"}
    assert message in error["message"], error
    if param is not None:
        assert error["param"] == param, error
    if code is not None:
        assert error["code"] == code, error


@pytest.mark.parametrize(
    "fields, param, message",
    [
        ({"temperature": 3}, "temperature", "less than or equal to 2"),
        ({"temperature": "1"}, "temperature", "valid number"),
        ({"top_p": 0}, "top_p", "greater than 0"),
        ({"n": 0}, "n", "greater than or equal to 1"),
        ({"max_tokens": -1}, "max_tokens", "greater than or equal to 0"),
        ({"max_tokens": 10**6}, "max_tokens", "must be at most"),
        ({"stop": [""]}, "stop.0", "at least 1 character"),
        ({"logit_bias": {"x": 1}}, "logit_bias.x", "match pattern"),
        ({"messages": []}, "messages", "at least 1 item"),
        ({"messages": [{"role": "king", "content": "a"}]}, "messages.0", "does not match"),
        ({"messages": [{"role": "user"}]}, "messages.0.content", "required"),
        ({"messages": [{"role": "assistant"}]}, "messages.0.content", "content or tool_calls"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages.0.content.0.type",
            "'text'",
        ),
        ({"tool_choice": "required"}, "tool_choice", "needs tools"),
        ({"tools": TOOLS, "tool_choice": NAMED}, "tool_choice", "must name one of the tools"),
        ({"tools": TOOLS * 2}, "tools", "f twice"),
        (
            {"tools": TOOLS, "response_format": {"type": "json_object"}},
            "response_format",
            "at once",
        ),
        ({"guided_regex": "a", "guided_choice": ["b"]}, "guided_choice", "Only one of"),
        ({"guided_json": "{"}, "guided_json", "JSON schema"),
        ({"reasoning_effort": "high"}, "reasoning_effort", "leave it out"),
        ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs", "must not set"),
    ],
)
def test_fields_of_a_chat(server, fields, param, message):
    check(server.chat(**fields), 400, message, param=param)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"stream_options": {"include_usage": True}}, "only allowed when stream is true"),
        ({"top_logprobs": 2}, "only allowed when logprobs is true"),
        ({"functions": []}, "use tools"),
        ({"best_of": 3}, "ask for n texts"),
        ({"min_tokens": 3}, "min_tokens is not supported"),
        ({"use_beam_search": True}, "no beam search"),
        ({"modalities": ["text", "audio"]}, "only text"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "differ"),
    ],
)
def test_what_would_change_the_result_in_silence(server, fields, message):
    check(server.chat(**fields), 400, message)


def test_what_would_not_is_ignored(server):
    fields = {"best_of": 1, "min_tokens": 0, "modalities": ["text"], "store": True, "metadata": {}}
    assert server.chat(max_tokens=1, unknown={"a": 1}, **fields).status_code == 200


@pytest.mark.parametrize(
    "fields, param, message",
    [
        ({"suffix": "x"}, None, "do not fill in"),
        ({"best_of": 2}, None, "ask for n texts"),
        ({"prompt": ""}, "prompt", "at least 1 character"),
        ({"prompt": []}, "prompt", "at least 1 item"),
        ({"prompt": [300]}, "prompt", "0..258"),
        ({"prompt": ["a"] * 129}, "prompt", "at most 128 texts"),
        ({"prompt": "a" * 5000}, "prompt", "at most 4096 tokens"),
        ({"prompt": "a\ud800"}, "prompt", "unicode"),
        ({"logprobs": 21}, "logprobs", "less than or equal to 20"),
    ],
)
def test_fields_of_a_completion(server, fields, param, message):
    body = json.dumps({"model": "fake/model", "prompt": "hi"} | fields)
    headers = {"Content-Type": "application/json"}
    check(
        server.http.post("/v1/completions", content=body, headers=headers),
        400,
        message,
        param=param,
    )


@pytest.mark.parametrize(
    "body, headers, status, message",
    [
        (b"{", {}, 400, "is not JSON"),
        (b"", {}, 400, "must be a JSON object"),
        (b"[]", {}, 400, "must be a JSON object"),
        (b"\xff\xfe", {}, 400, ""),
        (b"[" * 100_000, {}, 400, ""),
        (b'{"model": 1' + b"0" * 5000 + b"}", {}, 400, ""),
        (b"{}", {"Content-Type": "text/plain"}, 400, "application/json"),
        (b'{"model": "fake/model", "prompt": "a", "temperature": NaN}', {}, 400, "finite"),
    ],
)
def test_bodies(server, body, headers, status, message):
    headers = {"Content-Type": "application/json"} | headers
    check(server.http.post("/v1/completions", content=body, headers=headers), status, message)


def test_paths_and_methods(server):
    check(server.http.get("/v1/other"), 404, "Not Found", code="not_found")
    check(server.http.get("/v1/completions"), 405, "Method", code="method_not_allowed")
    check(server.chat(model="other"), 404, "'other' does not exist", param="model")


def test_a_model_without_a_chat_template(serving):
    server = serving(template=None)
    check(server.chat(), 400, "/v1/completions", code="no_chat_template")
    check(server.chat(tools=TOOLS), 400, "no place for tools", param="tools")
    assert server.complete(max_tokens=1).status_code == 200


def test_a_template_that_refuses_and_one_that_fails(serving):
    server = serving(template="{{ raise_exception('users only') }}")
    check(server.chat(), 400, "users only", param="messages")
    server = serving(template="{{ messages[0].content + 1 }}")
    check(server.chat(), 400, "does not render", param="messages")


def test_a_malformed_template_is_refused_at_the_start(fake):
    from oarlock.llm.server import create_app

    service = fake.FakeService()
    service.chat_template = "{% if %}"
    with pytest.raises(ValueError, match="template is"):
        create_app(service)


def test_keys(serving, tmp_path):
    from oarlock.llm.server import ApiKeys

    server = serving(keys=["secret-1", "secret-2"])
    check(server.chat(), 401, "Authorization: Bearer", code="invalid_api_key")
    for value in ("Bearer wrong", "Basic secret-1", "secret-1", "Bearer", "Bearer secret-1x"):
        response = server.http.get("/v1/models", headers={"Authorization": value})
        assert response.status_code == 401 and response.headers["WWW-Authenticate"] == "Bearer"
    for key in ("secret-1", "secret-2"):
        response = server.http.get("/v1/models", headers={"Authorization": f"Bearer {key}"})
        assert response.status_code == 200
    for path in ("/health", "/metrics", "/", "/openapi.json"):
        assert server.http.get(path).status_code == 200
    assert server.http.get("/openapi.json").json()["components"]["securitySchemes"]

    path = tmp_path / "keys"
    path.write_text("# ours\nabc\n\n def \n")
    keys = ApiKeys.from_file(path)
    assert len(keys) == 2 and keys.admit(b"Bearer def") and not keys.admit(None)
    path.write_text("# none\n")
    with pytest.raises(ValueError, match="must hold a key a line"):
        ApiKeys.from_file(path)
    path.write_text("a b\n")
    with pytest.raises(ValueError, match="number 1 is not"):
        ApiKeys.from_file(path)
    with pytest.raises(ValueError, match="write"):
        ApiKeys("abc")


def test_nothing_private_is_logged(serving, caplog):
    server = serving(keys=["the-key"], fail_after=1)
    with caplog.at_level(logging.DEBUG):
        headers = {"Authorization": "Bearer the-key", "X-Request-Id": "mine-1"}
        body = {"model": "fake/model", "messages": [{"role": "user", "content": "private words"}]}
        response = server.http.post("/v1/chat/completions?q=private", json=body, headers=headers)
        assert response.headers["X-Request-Id"] == "mine-1"
        bad = server.http.post("/v1/completions", json=body, headers={"X-Request-Id": "a\tb"})
        assert bad.headers["X-Request-Id"].startswith("req-")
    lines = [r.getMessage() for r in caplog.records if r.name == "oarlock.llm.server.access"]
    first = json.loads(lines[0])
    assert first["id"] == "mine-1" and first["route"] == "/v1/chat/completions"
    assert first["status"] == 500 and first["prompt_tokens"] > 10
    ours = [r.getMessage() for r in caplog.records if not r.name.startswith("http")]
    assert not any("private" in line or "the-key" in line for line in ours)


def test_an_unexpected_failure_is_told_and_logged_without_its_message(serving, caplog):
    server = serving()

    message = " ".join(["private"] * 2)

    def submit(request):
        raise RuntimeError(message)

    server.service.submit = submit
    check(server.chat(), 500, "under request", code="internal_error")
    records = [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]
    assert any("RuntimeError" in text and "submit" in text for text in records)
    assert not any(message in text for text in records)
    server.service.submit = None
    assert server.http.get("/health").status_code == 200


def test_an_unexpected_failure_ends_a_stream_with_an_error(serving):
    server = serving()

    class Broken:
        async def accepted(self):
            pass

        async def __anext__(self):
            raise RuntimeError("private")

        def __aiter__(self):
            return self

        def cancel(self):
            pass

    server.service.submit = lambda request: Broken()
    body = {"model": "fake/model", "messages": [{"role": "user", "content": "a"}], "stream": True}
    text = ""
    with server.http.stream("POST", "/v1/chat/completions", json=body) as answer:
        with pytest.raises(httpx.RemoteProtocolError):  # it is not whole
            for piece in answer.iter_text():
                text += piece
    assert "internal_error" in text and "private" not in text and "[DONE]" not in text


def test_cross_origin_requests_only_where_asked_for(serving):
    preflight = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    server = serving()
    response = server.http.options("/v1/models", headers=preflight)
    assert "access-control-allow-origin" not in response.headers
    server = serving(config={"cors_origins": ("https://a.example",)}, keys=["k"])
    response = server.http.options("/v1/models", headers=preflight)
    assert response.headers["access-control-allow-origin"] == "https://a.example"


def test_configuration_is_checked():
    from oarlock.llm.server import Limits, ServerConfig

    for fields in ({"concurrency": 0}, {"queue": -1}, {"request_s": 0}, {"body_bytes": 1.5}):
        with pytest.raises(ValueError, match=f"{next(iter(fields))} must be"):
            Limits(**fields)
    assert Limits(queue=0, drain_s=0).queue == 0
    with pytest.raises(ValueError, match="tool_style must be one of"):
        ServerConfig(tool_style="x")
    with pytest.raises(ValueError, match="cors_origins"):
        ServerConfig(cors_origins="https://a.example")
