"""Any server that speaks OpenAI's protocol, as a backend."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import httpx

from oarlock.llm.eval.backends.base import (
    Continuation,
    NotSupported,
    Prompt,
    Score,
    Value,
    cut_at_stop,
)

RETRIED = {408, 429, 500, 502, 503, 504}


class EndpointError(RuntimeError):
    """The server refused a request, or could not be reached."""


class EndpointBackend:
    """Asks ``/completions`` or ``/chat/completions``.

    Log-probabilities need a server whose completions take ``echo`` with ``logprobs``; chat has none, and tasks
    that need them are refused with that reason. The server decides about batches, so scores are as
    reproducible as it is.

    Args:
        base_url: with the version, such as "http://localhost:8000/v1".
        model: as the server calls it.
        mode: which of the two.
        api_key: sent as bearer token; never stored.
        system: first message of every chat.
        concurrency: requests at a time.
        retries: after a busy or failing server, with waits of 1, 2, 4 … times ``wait_s``.
        wait_s: before the first retry.
        timeout_s: of a request.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        mode: Literal["completions", "chat"] = "completions",
        api_key: str | None = None,
        system: str | None = None,
        concurrency: int = 4,
        retries: int = 4,
        wait_s: float = 1.0,
        timeout_s: float = 300.0,
    ):
        if mode not in ("completions", "chat"):
            raise ValueError(f"mode must be 'completions' or 'chat', got {mode!r}.")
        if concurrency < 1 or retries < 0:
            raise ValueError(
                f"concurrency must be 1 or more and retries 0 or more, got {concurrency}, {retries}."
            )
        if system is not None and mode != "chat":
            raise ValueError("system belongs to mode 'chat'.")
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._client = httpx.Client(
            base_url=base_url.rstrip("/") + "/", headers=headers, timeout=timeout_s
        )
        self._mode, self._model, self._system = mode, model, system
        self._concurrency, self._retries, self._wait_s = concurrency, retries, wait_s
        self.description: dict[str, Value] = {
            "backend": "endpoint",
            "model": model,
            "url": base_url,
            "mode": mode,
            "system": system,
        }

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def loglikelihood(self, requests: Sequence[tuple[str, str]]) -> list[Score]:
        """As `Backend`.

        Raises:
            NotSupported: in mode "chat", or where the server does not echo log-probabilities.
            EndpointError: the server fails.
        """
        if self._mode == "chat":
            raise NotSupported(
                "loglikelihood needs mode 'completions': chats give no log-probabilities of a given text."
            )
        return self._map(self._score, list(requests))

    def loglikelihood_rolling(self, texts: Sequence[str]) -> list[Score]:
        """As `Backend`; the first token of a text has nothing before it and is not scored."""
        return self.loglikelihood([("", text) for text in texts])

    def generate(self, prompts: Sequence[Prompt]) -> list[Continuation]:
        """As `Backend`; raises EndpointError if the server fails."""
        return self._map(self._continue, list(prompts))

    def _map(self, function: Any, arguments: list[Any]) -> list[Any]:
        with ThreadPoolExecutor(self._concurrency) as pool:
            return list(pool.map(function, arguments))

    def _score(self, request: tuple[str, str]) -> Score:
        context, continuation = request
        text = context + continuation
        body = {"prompt": text, "max_tokens": 0, "echo": True, "logprobs": 1, "temperature": 0}
        choice = self._post("completions", body)["choices"][0]
        found = choice.get("logprobs")
        if choice.get("text") != text or not found or len(found["token_logprobs"]) < 1:
            raise NotSupported(
                f"loglikelihood needs a server that echoes the prompt with its log-probabilities; "
                f"{self._client.base_url} does not."
            )
        # tokens that reach into the continuation belong to it
        ends = [*found["text_offset"][1:], len(text)]
        kept = [
            i
            for i, end in enumerate(ends)
            if end > len(context) and found["token_logprobs"][i] is not None
        ]
        if not kept:
            raise ValueError(f"continuation {continuation!r} has no token that the server scored.")
        tops = found.get("top_logprobs")
        greedy = None
        if tops:
            greedy = all(
                found["token_logprobs"][i] >= max(tops[i].values()) for i in kept if tops[i]
            )
        return Score(
            logprob=float(sum(found["token_logprobs"][i] for i in kept)),
            greedy=greedy,
            tokens=len(kept),
        )

    def _continue(self, prompt: Prompt) -> Continuation:
        body: dict[str, Any] = {"max_tokens": prompt.max_tokens, "temperature": 0}
        if prompt.stop:
            body["stop"] = list(prompt.stop[:4])  # the protocol takes four; the rest is cut here
        if self._mode == "chat":
            system = [{"role": "system", "content": self._system}] if self._system else []
            body["messages"] = [*system, {"role": "user", "content": prompt.text}]
            answer = self._post("chat/completions", body)
            choice = answer["choices"][0]
            text = choice["message"].get("content") or ""
        else:
            answer = self._post("completions", body | {"prompt": prompt.text})
            choice = answer["choices"][0]
            text = choice["text"]
        text, stopped = cut_at_stop(text, prompt.stop)
        return Continuation(
            text=text,
            finish="length" if choice.get("finish_reason") == "length" and not stopped else "stop",
            tokens=int((answer.get("usage") or {}).get("completion_tokens", 0)),
        )

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        reason = ""
        for attempt in range(self._retries + 1):
            if attempt:
                time.sleep(self._wait_s * 2 ** (attempt - 1))
            try:
                response = self._client.post(path, json=body | {"model": self._model})
            except httpx.TransportError as error:
                reason = repr(error)
                continue
            if response.status_code == 200:
                return response.json()
            reason = f"status {response.status_code}: {response.text[:300]}"
            if response.status_code not in RETRIED:
                break
        raise EndpointError(f"{self._client.base_url}{path} failed: {reason}")
