"""Servers of the fake model on loopback ports."""

import asyncio
import importlib.util
import sys
import threading
import time
from pathlib import Path

import httpx
import openai
import pytest

FAKE = Path(__file__).with_name("fake_service.py")


def load_fake():
    """The module beside this file, which is no part of a package."""
    if "oarlock_fake_service" not in sys.modules:
        spec = importlib.util.spec_from_file_location("oarlock_fake_service", FAKE)
        module = importlib.util.module_from_spec(spec)
        sys.modules["oarlock_fake_service"] = module
        spec.loader.exec_module(module)
    return sys.modules["oarlock_fake_service"]


class Running:
    """A server in a thread."""

    def __init__(self, service, config, keys):
        from oarlock.llm.server import Server, create_app

        self.service = service
        self.app = create_app(service, config=config, keys=keys)
        self.context = self.app.state.context
        self.server = Server(self.app, port=0)
        self.thread = threading.Thread(target=lambda: asyncio.run(self.server.serve()), daemon=True)
        self.thread.start()
        until(lambda: self.server.started)
        self.url = self.server.address
        self.http = httpx.Client(base_url=self.url, timeout=20, trust_env=False)
        self.openai = openai.OpenAI(
            base_url=f"{self.url}/v1",
            api_key="k",
            max_retries=0,
            http_client=httpx.Client(timeout=20, trust_env=False),
        )

    def stop(self):
        self.http.close()
        self.openai.close()
        self.server.handle_exit(15, None)
        self.thread.join(10)
        assert not self.thread.is_alive(), "the server did not stop within 10 s"

    def chat(self, content="hi", **fields):
        body = {"model": "fake/model", "messages": [{"role": "user", "content": content}]}
        return self.http.post("/v1/chat/completions", json=body | fields)

    def complete(self, prompt="hi", **fields):
        return self.http.post(
            "/v1/completions", json={"model": "fake/model", "prompt": prompt} | fields
        )


def until(condition, seconds=5.0):
    """Wait for what another thread does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.005)


@pytest.fixture(scope="session")
def fake():
    return load_fake()


@pytest.fixture(scope="session")
def wait_until():
    return until


@pytest.fixture
def serving(fake):
    """Start servers: fields of the fake service, and ``limits``, ``config``, ``keys``."""
    from oarlock.llm.server import ApiKeys, Limits, ServerConfig

    started = []

    def start(*, limits=None, config=None, keys=(), template=..., **fields):
        service = fake.FakeService(**fields)
        if template is not ...:
            service.chat_template = template
        config = {"limits": Limits(**(limits or {}))} | (config or {})
        started.append(Running(service, ServerConfig(**config), ApiKeys(keys)))
        return started[-1]

    yield start
    for running in started:
        running.stop()


@pytest.fixture(scope="module")
def server(fake):
    """One that tests share, with default settings."""
    from oarlock.llm.server import ApiKeys, ServerConfig

    running = Running(fake.FakeService(), ServerConfig(), ApiKeys())
    yield running
    running.stop()
