"""Serving: OpenAI's API over HTTP, whose answers never depend on what else is being answered.

In: a `LanguageModel` and HTTP requests. Out: completions, whole or byte by byte. Next: `blt serve`.

One thread owns the model (`worker.py`); the event loop checks requests, hands them over, and passes on what comes back.
"""

from blt.errors import MissingExtraError

try:
    import fastapi as _fastapi  # noqa: F401
    import uvicorn as _uvicorn  # noqa: F401
except ImportError as _missing:
    raise MissingExtraError(_missing.name or "fastapi", extra="serve", purpose="the server") from None

from blt.serving.app import create_app
from blt.serving.config import ServingConfig

__all__ = ["ServingConfig", "create_app"]
