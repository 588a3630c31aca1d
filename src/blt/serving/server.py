"""Running an application: uvicorn, which drains and ends when it is told to, and logs no request."""

import contextlib
import ipaddress
import logging
import signal
import threading
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from blt.errors import ConfigurationError

SWITCH_SECONDS = 0.0005
"""How soon a thread lets another have Python: the model's thread comes back from native code every few milliseconds."""
_LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def allowed_hosts(host: str, *, has_key: bool) -> tuple[str, ...] | None:
    """Return the names that a Host header may have; None, any, where a key guards the server or none is wanted.

    A page of another site can let its own name lead to 127.0.0.1, and its requests then come from the user's browser.
    """
    if has_key or not is_loopback(host):
        return None
    return (*_LOCAL_NAMES, f"[{host}]" if ":" in host else host)


def refuse_open_address(host: str, *, has_key: bool, needs_no_key: bool) -> None:
    """Refuse to be reached from other machines by anybody.

    Raises:
        ConfigurationError: there is no key, and nobody said that there need be none.
    """
    if not (has_key or needs_no_key or is_loopback(host)):
        raise ConfigurationError(
            f"--host {host}: other machines could use this server without a key; give --api-key-file (or set "
            "BLT_API_KEY), or say --no-key"
        )


class Server(uvicorn.Server):
    """Serves until SIGTERM or SIGINT, then answers what it has begun and returns; a second signal ends it at once."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take signals while serving. uvicorn itself would raise them again once it is done."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        kinds = (signal.SIGINT, signal.SIGTERM)
        before = {kind: signal.signal(kind, self.handle_exit) for kind in kinds}
        try:
            yield
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler)


def server_of(app: ASGIApp, *, host: str, port: int, drain_seconds: int) -> Server:
    """Return a server that logs neither paths nor bodies.

    Args:
        app: what answers.
        host: address to listen on.
        port: 0 takes any that is free.
        drain_seconds: how long answers may take that have begun when the server is told to end.
    """
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    config = uvicorn.Config(
        app,
        host=host.strip("[]"),
        port=port,
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=drain_seconds,
        timeout_keep_alive=75,
    )
    return Server(config)
