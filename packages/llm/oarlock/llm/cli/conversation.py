"""A conversation with a model: its messages, and what may be done with them."""

import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from oarlock.llm.cli import engine
from oarlock.llm.engine import LLM, Delta, SamplingParams

#: Parameters that `/set` changes, and how they are read.
_SETTINGS: dict[str, Callable[[str], Any]] = {
    "max_tokens": int,
    "temperature": float,
    "top_k": int,
    "top_p": float,
    "min_p": float,
    "repetition_penalty": float,
    "presence_penalty": float,
    "frequency_penalty": float,
    "seed": int,
}


class Conversation:
    """Messages and answers.

    Args:
        llm: that answers; it must have a chat template.
        params: how.
        system: message before all others; None for none.
        adapter: name of the LoRA adapter that answers; None for the model alone.

    Raises:
        ValueError: the model has no chat template.
    """

    def __init__(
        self,
        llm: LLM,
        params: SamplingParams,
        *,
        system: str | None = None,
        adapter: str | None = None,
    ) -> None:
        self.llm, self.params, self._adapter = llm, params, adapter
        self.messages: list[dict[str, str]] = []
        #: Of the last answer: tokens, seconds, why it ended.
        self.last: tuple[int, float, str] | None = None
        self.system(system)
        self.llm.chat_prompt([{"role": "user", "content": "a"}])  # a template is there and works

    def system(self, text: str | None) -> None:
        """Tell the model something before the conversation, in place of what it was told."""
        self.messages = [one for one in self.messages if one["role"] != "system"]
        if text:
            self.messages.insert(0, {"role": "system", "content": text})

    def reset(self) -> None:
        """Forget everything but the system's message."""
        self.messages = [one for one in self.messages if one["role"] == "system"]

    def undo(self) -> str:
        """Take the last message and its answer back; gives the message.

        Raises:
            ValueError: there is none.
        """
        places = [i for i, one in enumerate(self.messages) if one["role"] == "user"]
        if not places:
            raise ValueError("there is no message to take back.")
        text = self.messages[places[-1]]["content"]
        self.messages = self.messages[: places[-1]]
        return text

    def answer(self, text: str, stopped: Callable[[], bool] = lambda: False) -> Iterator[str]:
        """Say something; gives the answer as it grows.

        Args:
            text: of the message.
            stopped: asked after each piece; the answer so far then stays in the conversation.

        Raises:
            ValueError: the template refuses the messages, or they are too long; the message is not kept.
        """
        self.messages.append({"role": "user", "content": text})
        try:
            prompt = self.llm.chat_prompt(self.messages)
            room = self.llm.engine.max_length - len(prompt)
            if room < 1:
                raise ValueError(
                    f"the conversation has {len(prompt)} tokens, and the model holds "
                    f"{self.llm.engine.max_length}: /undo, /reset, or a larger --max-length."
                )
            wanted = self.params.max_tokens
            params = dataclasses.replace(
                self.params, max_tokens=room if wanted is None else min(room, wanted)
            )
            deltas = self.llm.stream(prompt, params, adapter=self._adapter)
        except BaseException:
            self.messages.pop()
            raise
        return self._grow(deltas, stopped)

    def _grow(self, deltas: Iterator[Delta], stopped: Callable[[], bool]) -> Iterator[str]:
        pieces: list[str] = []
        count, begin, reason = 0, time.perf_counter(), "stopped"
        try:
            for delta in deltas:
                if delta.error is not None:
                    raise ValueError(delta.error)
                count += len(delta.tokens)
                pieces.append(delta.text)
                reason = delta.finish_reason or "stopped"
                yield delta.text
                if delta.finish_reason is None and stopped():
                    break
        except Exception:
            self.messages.pop()
            raise
        except BaseException:  # interrupted: what is there stays
            self._keep(pieces)
            raise
        finally:
            deltas.close()  # type: ignore[attr-defined]
        self._keep(pieces)
        self.last = (count, time.perf_counter() - begin, reason)

    def _keep(self, pieces: list[str]) -> None:
        self.messages.append({"role": "assistant", "content": "".join(pieces)})

    @property
    def tokens(self) -> int:
        """Of all messages together, as the model is given them."""
        if not any(one["role"] == "user" for one in self.messages):
            return 0
        return len(self.llm.chat_prompt(self.messages))

    def set(self, name: str, value: str) -> None:
        """Change a sampling parameter.

        Raises:
            ValueError: it is none, or the value does not fit.
        """
        if name not in _SETTINGS:
            raise ValueError(f"/set changes one of {', '.join(_SETTINGS)}, not {name!r}.")
        try:
            number = None if value == "none" else _SETTINGS[name](value)
        except ValueError as error:
            raise ValueError(f"{name} must be a number or none, got {value!r}.") from error
        if name == "top_k" and number in engine.ALL_TOKENS:
            number = None
        changed: dict[str, Any] = {name: number}
        self.params = dataclasses.replace(self.params, **changed)

    def save(self, path: Path) -> None:
        """Write the messages as JSON; the file appears when it is complete."""
        partial = path.with_name(f"{path.name}.partial")
        try:
            text = json.dumps({"messages": self.messages}, indent=2, ensure_ascii=False)
            partial.write_text(text + "\n", encoding="utf-8")
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)

    def load(self, path: Path) -> None:
        """Go on from what ``save`` wrote.

        Raises:
            ValueError: the file holds no conversation.
        """
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            messages = [{key: one[key] for key in ("role", "content")} for one in found["messages"]]
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"{path} must hold a JSON object with messages: {error!r}.") from error
        for one in messages:
            if one["role"] not in ("system", "user", "assistant") or not isinstance(one["content"], str):  # fmt: skip
                raise ValueError(f"{path}: a message must be a text of system, user or assistant, got {one!r}.")  # fmt: skip
        self.messages = messages
