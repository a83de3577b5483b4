"""Too much, too many, too slow, gone: every bound on what clients may cost."""

import json
import socket
import threading
import time

import httpx
import openai
import pytest


def connect(server, *, receive_buffer=None):
    connection = socket.socket()
    if receive_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(10)
    host, port = server.url.removeprefix("http://").split(":")
    connection.connect((host, int(port)))
    return connection


def request_bytes(body, path="/v1/completions"):
    data = json.dumps({"model": "fake/model", "prompt": "hi"} | body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


def read_all(connection):
    data = b""
    try:
        while part := connection.recv(65536):
            data += part
    except ConnectionResetError:
        pass
    return data


def test_body_size(serving):
    server = serving(limits={"body_bytes": 1000})
    for size in (2_000, 1_000_000):
        response = server.complete("a" * size)
        assert response.status_code == 413
        assert response.json()["error"]["code"] == "body_too_large"
    # a body that does not say its length
    response = server.http.post("/v1/completions", content=iter([b"a" * 600] * 3))
    assert response.status_code == 413
    assert server.complete("a" * 100, max_tokens=1).status_code == 200


def test_slow_body(serving):
    server = serving(limits={"body_s": 0.2})
    with connect(server) as connection:
        connection.sendall(request_bytes({})[:-5])
        answer = read_all(connection)
    assert b" 408 " in answer.split(b"\r\n")[0] and b"timeout_error" in answer


def test_slow_headers_and_idle_connections(serving):
    server = serving(limits={"header_s": 0.2, "idle_s": 1.0})
    with connect(server) as silent, connect(server) as slow:
        slow.sendall(b"GET / HTTP/1.1\r\nHost:")
        began = time.monotonic()
        assert read_all(silent) == b"" and read_all(slow) == b""
        assert time.monotonic() - began < 2
    with connect(server) as second:
        second.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        while b"ready" not in answer:
            answer += second.recv(65536)
        second.sendall(b"GET /hea")  # the second request of a connection, never completed
        assert read_all(second) == b""
    with connect(server) as idle:
        idle.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"ready" in read_all(idle)  # closed by the server


def test_full_queue(serving, wait_until):
    server = serving(step_s=0.01, limits={"concurrency": 2, "queue": 1, "retry_after_s": 7})
    statuses = []
    threads = [
        threading.Thread(target=lambda: statuses.append(server.chat(max_tokens=30).status_code))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: server.context.gate.running == 2 and server.context.gate.waiting == 1)
    for stream in (False, True):
        response = server.chat(stream=stream)
        assert response.status_code == 429 and response.headers["Retry-After"] == "7"
        assert response.json()["error"]["code"] == "queue_full"
    with pytest.raises(openai.RateLimitError):
        server.openai.embeddings.create(model="fake/model", input="a")
    metrics = server.http.get("/metrics").text
    assert "# TYPE oarlock_engine_tokens_generated_total counter" in metrics
    assert "oarlock_requests_running 2.0" in metrics and "oarlock_requests_waiting 1.0" in metrics
    for thread in threads:
        thread.join()
    assert statuses == [200] * 3
    assert server.context.gate.running == 0


def test_engine_that_is_overloaded(serving):
    server = serving(capacity=1, step_s=0.005)
    response = server.complete(["a", "b"], max_tokens=50)  # the second finds no room
    assert response.status_code == 429 and "Retry-After" in response.headers
    assert server.service.cancelled == 1 and not server.service.streams
    assert server.complete("a", max_tokens=1).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_client_that_goes_away_cancels(serving, wait_until, stream):
    server = serving(step_s=0.02)
    with connect(server) as connection:
        connection.sendall(request_bytes({"max_tokens": 1000, "stream": stream}))
        wait_until(lambda: server.service.streams)
    wait_until(lambda: not server.service.streams)
    assert server.service.cancelled == 1
    wait_until(lambda: server.context.gate.running == 0)
    assert "oarlock_cancelled_requests_total 1.0" in server.http.get("/metrics").text


def test_client_that_goes_away_while_it_waits(serving, wait_until):
    server = serving(step_s=0.02, limits={"concurrency": 1})
    with connect(server) as first:
        first.sendall(request_bytes({"max_tokens": 1000}))
        wait_until(lambda: server.context.gate.running == 1)
        with connect(server) as second:
            second.sendall(request_bytes({"max_tokens": 1000}))
            wait_until(lambda: server.context.gate.waiting == 1)
        wait_until(lambda: server.context.gate.waiting == 0)
        assert server.context.gate.running == 1
    wait_until(lambda: server.context.gate.running == 0)


def test_request_time(serving, wait_until):
    server = serving(step_s=0.02, limits={"request_s": 0.3})
    response = server.chat(max_tokens=1000)
    assert response.status_code == 408 and response.headers["x-should-retry"] == "false"
    text = ""
    with pytest.raises(openai.APIError, match="longer than 0.3 s"):
        for chunk in server.openai.completions.create(
            model="fake/model", prompt="a", max_tokens=1000, stream=True
        ):
            text += chunk.choices[0].text
    assert 3 < len(text) < 30
    wait_until(lambda: server.service.cancelled == 2 and not server.service.streams)


def test_reader_that_does_not_read(serving, wait_until):
    server = serving(max_length=1 << 20, limits={"write_s": 0.3})
    with connect(server, receive_buffer=4096) as connection:
        connection.sendall(request_bytes({"max_tokens": 200_000, "stream": True, "logprobs": 5}))
        wait_until(lambda: server.context.gate.running == 1)
        wait_until(lambda: server.context.gate.running == 0, 10)
    assert server.service.cancelled == 1
    assert server.chat(max_tokens=3).status_code == 200


def test_tokens(serving):
    server = serving(limits={"prompt_tokens": 50, "completion_tokens": 7, "prompt_characters": 100})
    response = server.complete("a" * 60)
    assert response.status_code == 400 and "at most 50 tokens" in response.text
    response = server.complete("a" * 101)
    assert response.status_code == 400 and "at most 100 characters" in response.text
    assert server.chat("b" * 101).status_code == 400
    response = server.complete(max_tokens=8)
    assert response.status_code == 400 and "at most 7 on this server" in response.text
    assert server.chat().json()["usage"]["completion_tokens"] == 7


def test_stopping_refuses_and_drains(serving, wait_until):
    server = serving(step_s=0.02)
    replies = []
    thread = threading.Thread(target=lambda: replies.append(server.chat(max_tokens=40)))
    thread.start()
    wait_until(lambda: server.service.streams)
    with httpx.Client(base_url=server.url, trust_env=False) as other:
        server.server.handle_exit(15, None)
        response = other.get("/health")
        assert response.status_code == 503 and other.get("/health/live").status_code == 200
        response = other.post("/v1/completions", json={"model": "fake/model", "prompt": "a"})
        assert response.status_code == 503 and "Retry-After" in response.headers
    thread.join()
    assert replies[0].status_code == 200
    assert replies[0].json()["usage"]["completion_tokens"] == 40
    server.thread.join(10)
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.url, trust_env=False)


def test_what_does_not_end_in_time_is_aborted_and_told(serving, wait_until):
    server = serving(step_s=0.02, limits={"drain_s": 0.2, "concurrency": 2})
    replies = []

    def whole():
        replies.append(server.chat(max_tokens=1000).status_code)

    def streamed():
        response = server.chat(max_tokens=1000, stream=True)
        replies.append((response.status_code, response.text))

    threads = [threading.Thread(target=t) for t in (whole, streamed, whole)]
    for thread in threads:
        thread.start()
    wait_until(lambda: server.context.gate.waiting == 1 and server.context.gate.running == 2)
    server.server.handle_exit(15, None)
    for thread in threads:
        thread.join()
    statuses = [reply for reply in replies if isinstance(reply, int)]
    streams = [reply for reply in replies if not isinstance(reply, int)]
    assert len(replies) == 3 and set(statuses) == {503}
    for status, text in streams:
        assert status == 503 or "shutting_down" in text and "[DONE]" not in text
