"""The chat page at /."""

import base64
import hashlib
import json
import re
from importlib import resources

from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse

from oarlock.llm.server.context import Context

_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


def router(context: Context, *, needs_key: bool) -> APIRouter:
    """The page, which needs no key itself, but asks for one if the server does."""
    routes = APIRouter()
    source = (resources.files("oarlock.llm.server") / "page" / "chat.html").read_text("utf-8")
    settings = {
        "models": [context.service.about.name, *context.service.about.adapters],
        "needsKey": needs_key,
        "maxLength": context.service.about.max_length,
    }
    # In an attribute: text of any kind is harmless there once quotes, < and & are escaped.
    text = json.dumps(settings).replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    html = source.replace("{{settings}}", text)
    headers = {
        "Content-Security-Policy": policy(html),
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
        "X-Frame-Options": "DENY",
    }

    @routes.get("/", include_in_schema=False)
    async def chat_page() -> Response:
        return HTMLResponse(html, headers=headers)

    @routes.get("/favicon.ico", include_in_schema=False)
    async def icon() -> Response:
        return Response(status_code=204)

    return routes


def policy(html: str) -> str:
    """Content security: the page's own script and style by their hashes, requests to this server."""
    hashes: dict[str, list[str]] = {"script": [], "style": []}
    for found in _INLINE.finditer(html):
        digest = hashlib.sha256(found[2].encode()).digest()
        hashes[found[1]].append(f"'sha256-{base64.b64encode(digest).decode()}'")
    return (
        f"default-src 'none'; script-src {' '.join(hashes['script'])}; "
        f"style-src {' '.join(hashes['style'])}; connect-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
