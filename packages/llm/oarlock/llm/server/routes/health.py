"""/health and /metrics, for whoever watches the server."""

from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from oarlock.llm.server.context import Context


def router(context: Context) -> APIRouter:
    """The endpoints, which need no key and tell nothing of any request."""
    routes = APIRouter(tags=["operation"])

    @routes.get("/health/live")
    async def live() -> dict[str, str]:
        """The process answers."""
        return {"status": "alive"}

    not_ready: dict[int | str, dict[str, Any]] = {
        503: {"description": "The server is shutting down, or a rank of it is lost."}
    }

    @routes.get("/health/ready", responses=not_ready)
    @routes.get("/health", responses=not_ready)
    async def ready() -> JSONResponse:
        """Requests are taken; not while the server is shutting down, nor when a rank of it is lost."""
        if context.service.stats().get("failed"):
            return JSONResponse({"status": "failed"}, status_code=503)
        if context.gate.stopping:
            return JSONResponse({"status": "stopping"}, status_code=503)
        return JSONResponse({"status": "ready"})

    @routes.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """In Prometheus' text format."""
        media_type = "text/plain; version=0.0.4; charset=utf-8"
        return Response(context.metrics.text(), media_type=media_type)

    return routes
