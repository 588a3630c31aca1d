"""Errors in the shape of OpenAI's API: what was wrong, the value, the way out."""

import itertools
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from blt.configuration import shown
from blt.errors import BLTError, ConfigurationError, DataError, MissingExtraError, one_line


class APIError(Exception):
    """An error that a client is told.

    Args:
        message: what was wrong, the value, the way out.
        status: of HTTP.
        param: the field of the request that was wrong.
        code: a name for programs.
        retry_after: seconds after which it is worth while to try again.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code, self.retry_after = status, param, code, retry_after

    @property
    def body(self) -> dict[str, Any]:
        """What is sent."""
        described = {"message": one_line(str(self)), "type": _type(self.status), "param": self.param, "code": self.code}
        return {"error": described}

    def response(self) -> JSONResponse:
        """Return the answer."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return JSONResponse(self.body, status_code=self.status, headers=headers)


def _type(status: int) -> str:
    special = {401: "authentication_error", 404: "not_found_error", 408: "timeout_error", 429: "rate_limit_error"}
    return special.get(status, "invalid_request_error" if status < 500 else "server_error")


def api_error(error: BaseException) -> APIError:
    """Return what a client is told of an error; of one that nobody expected, nothing that it may hold."""
    if isinstance(error, APIError):
        return error
    if isinstance(error, RequestValidationError):
        return _of_validation(error.errors())
    if isinstance(error, HTTPException):
        return _of_http(error)
    if isinstance(error, MissingExtraError):
        return APIError(f"this server lacks a package ({error}); ask who runs it", code="missing_extra")
    if isinstance(error, ConfigurationError | DataError):
        name, colon, _ = str(error).partition(":")
        return APIError(str(error), param=name if colon and name.isidentifier() else None)
    if isinstance(error, BLTError):
        return APIError(str(error), status=500, code="model_error")
    message = "the server failed; its log names the kind of error. Try again, or report it"
    return APIError(message, status=500, code="internal_error")


def _of_http(error: HTTPException) -> APIError:
    if error.status_code == 404:
        return APIError("no such path; /openapi.json lists them all", status=404, code="unknown_path")
    if error.status_code == 405:
        return APIError("this path has no such method; /openapi.json lists them", status=405, code="unknown_method")
    if error.status_code == 413:
        return APIError(str(error.detail), status=413, code="body_too_large")
    return APIError(f"{error.detail}; send one JSON object in UTF-8", status=error.status_code, code="invalid_json")


def _of_validation(found: Any) -> APIError:
    """Return the first thing that was wrong with a request."""
    first: dict[str, Any] = next(iter(found), {"msg": "the request cannot be read", "loc": (), "type": ""})
    if first["type"] == "json_invalid":
        reason = first.get("ctx", {}).get("error", "")
        return APIError(f"the body is not JSON ({reason}); send one JSON object", code="invalid_json")
    if tuple(first["loc"]) == ("body",) and first["type"] == "missing":
        return APIError("the body is empty; send one JSON object", code="invalid_json")
    parts = [str(part) for part in first["loc"] if part != "body"]
    place = ".".join(itertools.takewhile(lambda part: "[" not in part, parts))  # after it come pydantic's own names
    message = str(first["msg"]).removeprefix("Value error, ")
    if not place:
        named = message.partition(":")[0]
        return APIError(message, param=named if named.isidentifier() else None)
    if first["type"] == "value_error":  # of our own
        return APIError(f"{place}: {message}", param=place)
    if first["type"] == "missing":
        return APIError(f"{place}: it is missing, and has to be given", param=place)
    return APIError(f"{place}: {message[:1].lower()}{message[1:]}, got {shown(first.get('input'))}", param=place)
