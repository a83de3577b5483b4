"""Responses of /v1/models."""

from typing import Literal

from oarlock.llm.server.schemas.common import Answer


class Model(Answer):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    root: str
    parent: str | None
    max_model_len: int


class ModelList(Answer):
    object: Literal["list"] = "list"
    data: list[Model]
