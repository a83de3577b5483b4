"""The application: all endpoints around one model."""

import dataclasses
from typing import Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from oarlock.llm import installed
from oarlock.llm.engine.service import Service
from oarlock.llm.server import errors
from oarlock.llm.server.context import Context
from oarlock.llm.server.door import Door
from oarlock.llm.server.gate import Gate
from oarlock.llm.server.keys import ApiKeys
from oarlock.llm.server.limits import Limits
from oarlock.llm.server.metrics import Metrics
from oarlock.llm.server.prompts import Prompts
from oarlock.llm.server.routes import chat, completions, embeddings, health, models, page
from oarlock.llm.server.tokens import TokenTexts
from oarlock.llm.server.tools.styles import STYLES, ToolStyle, detect_style


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """What the endpoints are like.

    Args:
        limits: of requests.
        tool_style: how the model writes its calls; None for what its chat template shows.
        cors_origins: web pages of other origins that may use the server, as ``https://example.org``.
        chat_page: whether there is one at ``/``.

    Raises:
        ValueError: the style is not known.
    """

    limits: Limits = Limits()
    tool_style: ToolStyle | None = None
    cors_origins: tuple[str, ...] = ()
    chat_page: bool = True

    def __post_init__(self) -> None:
        if self.tool_style is not None and self.tool_style not in STYLES:
            raise ValueError(
                f"tool_style must be one of {', '.join(STYLES)}, got {self.tool_style!r}."
            )
        if isinstance(self.cors_origins, str):
            raise ValueError(
                f"cors_origins must be several, got one str; write ({self.cors_origins!r},)."
            )


def create_app(
    service: Service, *, config: ServerConfig = ServerConfig(), keys: ApiKeys | None = None
) -> FastAPI:
    """Endpoints as OpenAI's clients expect them, and ``/health``, ``/metrics`` and a chat page.

    Args:
        service: the model.
        config: what the endpoints are like.
        keys: of which requests under /v1/ must show one; None lets everybody in.

    Returns:
        An ASGI application; ``app.state.context`` is what its endpoints share.

    Raises:
        ValueError: the model's chat template is malformed.
    """
    keys = ApiKeys() if keys is None else keys
    gate = Gate(config.limits)
    style = config.tool_style or detect_style(service.chat_template)
    context = Context(
        service=service,
        limits=config.limits,
        gate=gate,
        metrics=Metrics(service, gate),
        prompts=Prompts(service),
        token_texts=TokenTexts(service.tokenizer),
        tool_style=style,
    )
    app = FastAPI(
        title="Oarlock",
        version=installed.version(),
        description=f"The language model {service.about.name}, with OpenAI's interface.",
        docs_url=None,  # they load scripts from elsewhere
        redoc_url=None,
    )
    app.state.context = context
    for module in (chat, completions, embeddings, models, health):
        app.include_router(module.router(context))
    if config.chat_page:
        app.include_router(page.router(context, needs_key=bool(keys)))
    errors.install(app)
    app.add_middleware(Door, keys=keys, limits=config.limits, metrics=context.metrics)
    if config.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(config.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-Request-Id"],
            expose_headers=["X-Request-Id", "Retry-After"],
        )
    describe = app.openapi
    app.openapi = lambda: _described(app, describe, needs_key=bool(keys))  # type: ignore[method-assign]
    return app


def _described(app: FastAPI, describe: Any, *, needs_key: bool) -> dict[str, Any]:
    """OpenAPI's description without the refusals of another shape that FastAPI adds."""
    if app.openapi_schema is not None:
        return app.openapi_schema
    described = describe()
    for path, operations in described["paths"].items():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            if needs_key and path.startswith("/v1/"):
                operation["security"] = [{"key": []}]
    schemas = described["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    if needs_key:
        described["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return described
