"""Refusals and failures in the shape that OpenAI's clients know."""

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    429: "rate_limit_error",
}
CODES = {404: "not_found", 405: "method_not_allowed"}


class APIError(Exception):
    """What a client is told instead of a result.

    Args:
        status: of HTTP; once a stream has begun, the error is an event of it.
        message: what was wrong and what would be right.
        param: the field of the request that was wrong, as ``messages.0.content``.
        code: for programs.
        headers: to send with it.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """The JSON of the answer."""
        kind = (
            "server_error"
            if self.status >= 500
            else TYPES.get(self.status, "invalid_request_error")
        )
        return {
            "error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        }

    def response(self) -> JSONResponse:
        """The answer itself."""
        return JSONResponse(self.body, status_code=self.status, headers=self.headers)


class ClientGone(Exception):
    """Whoever asked has closed the connection: nobody is there to answer."""


def bad_request(message: str, *, param: str | None = None, code: str | None = None) -> APIError:
    """A request that would be refused again."""
    return APIError(400, message, param=param, code=code)


def busy(message: str, *, retry_after_s: float) -> APIError:
    """A request that may be tried again."""
    return APIError(429, message, code="queue_full", headers=retry_after(retry_after_s))


def stopping(message: str, *, retry_after_s: float) -> APIError:
    """A request that another server must take."""
    headers = retry_after(retry_after_s) | {"Connection": "close"}
    return APIError(503, message, code="shutting_down", headers=headers)


def failed(message: str) -> APIError:
    """A request that another server must take, as this one will answer none any more."""
    return APIError(503, message, code="engine_failed", headers={"Connection": "close"})


def retry_after(seconds: float) -> dict[str, str]:
    """The header, in whole seconds, 1 or more."""
    return {"Retry-After": str(max(1, round(seconds)))}


def timed_out(message: str) -> APIError:
    """A request that took too long; clients are told not to try the same again by themselves."""
    return APIError(408, message, code="timeout", headers={"x-should-retry": "false"})


def install(app: FastAPI) -> None:
    """Have every error of ``app`` answered in this shape."""

    @app.exception_handler(APIError)
    async def refused(_: Request, error: APIError) -> JSONResponse:
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return of_validation(error).response()

    @app.exception_handler(HTTPException)
    async def other(_: Request, error: HTTPException) -> JSONResponse:
        code = CODES.get(error.status_code)
        return APIError(
            error.status_code, str(error.detail), code=code, headers=error.headers
        ).response()


def of_validation(error: RequestValidationError) -> APIError:
    """The first field that does not fit; its value is not repeated, it may be private."""
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return bad_request(
            f"The body is not JSON: {first['ctx']['error']} at character {first['loc'][-1]}.",
            code="invalid_json",
        )
    found = [(_path(item["loc"][1:], error.body), item) for item in error.errors()]
    # A field that may be one of several kinds has an error for each: the kind that fits best fails deepest.
    same = [(path, item) for path, item in found if path[: len(found[0][0])] == found[0][0]]
    path, first = max(same, key=lambda pair: len(pair[0]))
    if not path:
        return bad_request(
            (
                "The body must be a JSON object, sent with Content-Type: application/json."
                if first["type"] in ("missing", "model_attributes_type")
                else first["msg"].removeprefix("Value error, ").rstrip(".") + "."
            ),
            code="invalid_body",
        )
    param = ".".join(path)
    reasons = [item["msg"].removeprefix("Value error, ") for other, item in found if other == path]
    message = ", or: ".join(dict.fromkeys(reasons)).rstrip(".")
    code = "missing_required_parameter" if first["type"] == "missing" else "invalid_value"
    return bad_request(f"{param}: {message}.", param=param, code=code)


def _path(location: Sequence[str | int], body: Any) -> list[str]:
    """The parts of ``location`` that are keys of the body, without the names of kinds among them."""
    path = []
    for part in location:
        if isinstance(body, dict) and part in body:
            body = body[part]
        elif isinstance(body, list) and isinstance(part, int):
            body = body[part] if part < len(body) else None
        else:
            continue
        path.append(str(part))
    last = location[-1] if location else None
    if isinstance(body, dict) and isinstance(last, str) and (not path or path[-1] != last):
        path.append(last)  # a key that is missing
    return path
