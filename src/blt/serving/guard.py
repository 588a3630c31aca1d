"""What stands before every path: who may ask, how much may be sent, and the headers of every answer.

Pure ASGI: a response passes through as it is written, and a client that goes away is seen by whoever answers.
"""

import base64
import binascii
import hashlib
import hmac
import logging
from collections.abc import Mapping, Sequence

from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from blt.serving.config import ServingConfig
from blt.serving.errors import APIError, api_error
from blt.serving.metrics import Metrics

OPEN_PATHS = ("/health",)
"""Paths that ask for no key."""

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Of every answer. There is no header that would let pages of other sites read an answer."""

_log = logging.getLogger("blt.serving")


class Guard:
    """Middleware that refuses what may not be asked, and answers what fails, in the shape of OpenAI's errors.

    Args:
        app: what answers.
        config: what is allowed.
        metrics: what is counted.
        paths: that are counted by their names.
    """

    def __init__(self, app: ASGIApp, config: ServingConfig, metrics: Metrics, paths: Sequence[str]) -> None:
        self.app, self.config, self.metrics = app, config, metrics
        self._paths = frozenset(paths)
        self._key = None if config.api_key is None else _digest(config.api_key.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        answer = _Watched(send, self.metrics, scope["path"] if scope["path"] in self._paths else "other")
        try:
            headers = Headers(scope=scope)
            self._check_host(headers)
            self._check_key(scope["path"], headers)
            self._check_body(scope["method"], headers)
            await self.app(scope, self._limited(receive), answer)
        except Exception as error:  # noqa: BLE001 (whatever it is, the client gets an answer, and no other request ends)
            told = api_error(error)
            if told.status >= 500:
                _log.error("%s while answering %s", type(error).__name__, answer.path)
            if answer.has_started:
                raise _Cut from None  # nothing can be said any more; the connection ends
            response = told.response()
            if told.status == 401:
                response.headers["WWW-Authenticate"] = _challenge(headers)
            await response(scope, receive, answer)

    def _check_host(self, headers: Headers) -> None:
        """Refuse names that are not this server's: a page of another site may have let its own name lead here."""
        allowed = self.config.allowed_hosts
        host = headers.get("host", "")
        name = host[: host.find("]") + 1] if host.startswith("[") else host.partition(":")[0]
        if allowed is not None and name.lower() not in allowed:
            message = "the Host header names another server; use the address that this one listens on"
            raise APIError(message, status=403, code="unknown_host")

    def _check_key(self, path: str, headers: Headers) -> None:
        if self._key is None or path in OPEN_PATHS:
            return
        if not hmac.compare_digest(_digest(_given_key(headers.get("authorization", ""))), self._key):
            message = "no key, or a wrong one; send the header 'Authorization: Bearer KEY'"
            raise APIError(message, status=401, code="invalid_api_key")

    def _check_body(self, method: str, headers: Headers) -> None:
        """Refuse a body that is too large or no JSON; a page of another site can send none of JSON unasked."""
        length = headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > 15 or int(length) > self.config.max_body_bytes:
            raise self._too_large()
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if method == "POST" and kind != "application/json":
            message = f"Content-Type: {kind or 'none'}; send JSON as application/json"
            raise APIError(message, status=415, code="unknown_content_type")

    def _limited(self, receive: Receive) -> Receive:
        """Count the bytes of a body that does not say how long it is."""
        num_bytes = 0

        async def counted() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > self.config.max_body_bytes:
                raise HTTPException(413, str(self._too_large()))  # the one error that FastAPI passes on from here
            return message

        return counted

    def _too_large(self) -> APIError:
        message = f"the body has more than {self.config.max_body_bytes} bytes; send less, or raise --max-body-bytes"
        return APIError(message, status=413, code="body_too_large")


class _Cut(Exception):  # noqa: N818 (no error of its own: it ends a connection)
    """An answer that has begun cannot be ended well."""


class _Watched:
    """Sends an answer with the headers of all answers, and counts it."""

    def __init__(self, send: Send, metrics: Metrics, path: str) -> None:
        self._send, self._metrics, self.path = send, metrics, path
        self.has_started = False

    async def __call__(self, message: Message) -> None:
        """Send a part of the answer."""
        if message["type"] == "http.response.start":
            self.has_started = True
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
            self._metrics.requests.add(path=self.path, status=str(message["status"]))
        await self._send(message)


def _digest(key: bytes) -> bytes:
    """Return something of one length, so that comparing takes the same time for every key."""
    return hashlib.sha256(key).digest()


def _given_key(authorization: str) -> bytes:
    """Return the key of a header: a bearer token, or the password of a browser."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip().encode("latin-1", "replace")
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return b""
    return b""


def _challenge(headers: Mapping[str, str]) -> str:
    """Ask a browser for the key as a password, and a program for a token."""
    return 'Basic realm="blt", charset="UTF-8"' if "text/html" in headers.get("accept", "") else "Bearer"
