"""The application: paths, and what each of them answers.

| path | what |
|---|---|
| `POST /v1/completions` | continue prompts (`completions.py`) |
| `POST /v1/chat/completions` | answer in a conversation (`chat.py`) |
| `GET /v1/models` | the model that is served |
| `POST /tokenize`, `POST /detokenize`, `GET /tokenizer_info` | text ⇄ ids, as lm-eval's remote tokenizer reads them |
| `GET /api/model`, `POST /api/patch`, `POST /api/alternatives` | what the page asks (`texts.py`) |
| `GET /`, `GET /page/NAME` | the page, whose files are `blt.inspection`'s |
| `GET /health`, `GET /metrics`, `GET /openapi.json` | for the operator of the server |
"""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse, Response

from blt import __version__
from blt.codec import BOS_ID, BYTE_OFFSET, VOCABULARY_SIZE, encode
from blt.inspection import page_files
from blt.lm import LanguageModel
from blt.serving import texts
from blt.serving.chat import TEMPLATE, chat, stream_chat
from blt.serving.completions import complete, stream_completion
from blt.serving.config import ServingConfig
from blt.serving.errors import APIError, api_error
from blt.serving.guard import Guard
from blt.serving.metrics import CONTENT_TYPE, Metrics
from blt.serving.protocol import (
    AlternativesRequest,
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    PatchRequest,
    TokenizeRequest,
)
from blt.serving.state import State
from blt.serving.streams import EventStream, unless_gone
from blt.serving.tokens import BOS_NAME, EOS_NAME, SPECIAL_IDS
from blt.serving.worker import Worker

_ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
            "required": ["message", "type", "param", "code"],
        }
    },
    "required": ["error"],
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "What was wrong, and the way out.", "content": {"application/json": {"schema": _ERROR}}}
}


def create_app(lm: LanguageModel, config: ServingConfig | None = None) -> FastAPI:
    """Return an application that serves a model; it owns the model while it runs.

    Args:
        lm: the model.
        config: what is allowed.
    """
    config = config or ServingConfig()
    metrics = Metrics()
    worker = Worker(lm.eval(), config, metrics)
    state = State(lm=lm, config=config, worker=worker, metrics=metrics, created=int(time.time()))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        worker.start()
        yield
        await worker.stop()

    app = FastAPI(
        title="blt",
        version=__version__,
        description="Byte latent transformers by OpenAI's API; what it calls tokens are bytes.",
        lifespan=lifespan,
        docs_url=None,  # their pages come from another host
        redoc_url=None,
        responses=_RESPONSES,
    )
    app.state.serving = state
    _add_openai(app, state)
    _add_tokenizer(app, state)
    _add_page(app, state)
    _add_operation(app, state)

    async def refused(_: Request, error: Exception) -> Response:
        return api_error(error).response()

    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(RequestValidationError, refused)
    app.add_middleware(Guard, config=config, metrics=metrics, paths=counted_paths(app))
    return app


def counted_paths(app: FastAPI) -> list[str]:
    """Return the paths that are counted by their names: those that no client can choose."""
    return [path for route in app.routes if (path := getattr(route, "path", "")) and "{" not in path]


def _add_openai(app: FastAPI, state: State) -> None:
    """Add what OpenAI's clients ask."""

    @app.post("/v1/completions")
    async def completions(body: CompletionRequest, request: Request) -> Response:
        """Continue prompts; lengths are bytes."""
        if not body.stream:
            return JSONResponse(await unless_gone(request, complete(state, body), state.metrics))
        return _stream(state, *await unless_gone(request, stream_completion(state, body), state.metrics))

    @app.post("/v1/chat/completions")
    async def chat_completions(body: ChatRequest, request: Request) -> Response:
        """Answer in a conversation; lengths are bytes."""
        if not body.stream:
            return JSONResponse(await unless_gone(request, chat(state, body), state.metrics))
        return _stream(state, *await unless_gone(request, stream_chat(state, body), state.metrics))

    def described() -> dict[str, Any]:
        return {"id": state.config.model_name, "object": "model", "created": state.created, "owned_by": "blt"}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """List the one model that is served."""
        return {"object": "list", "data": [described()]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        """Describe the model that is served."""
        if name != state.config.model_name:
            message = f"there is no such model here; this server has {state.config.model_name!r}"
            raise APIError(message, status=404, param="model", code="model_not_found")
        return described()


def _stream(state: State, answer: Any, pieces: AsyncIterator[str]) -> EventStream:
    def close() -> None:
        state.worker.release(answer)

    return EventStream(pieces, close=close, metrics=state.metrics)


def _add_tokenizer(app: FastAPI, state: State) -> None:
    """Add what lm-eval's remote tokenizer asks."""

    @app.post("/tokenize")
    async def tokenize(body: TokenizeRequest) -> dict[str, Any]:
        """Turn a text into ids; the name of a special id, alone, becomes that id."""
        if not body.add_special_tokens and body.prompt in SPECIAL_IDS:
            ids = [SPECIAL_IDS[body.prompt]]
        else:
            ids = encode(body.prompt, bos=body.add_special_tokens).tolist()
        return {"count": len(ids), "max_model_len": _longest(state), "tokens": ids}

    @app.post("/detokenize")
    async def detokenize(body: DetokenizeRequest) -> dict[str, Any]:
        """Turn ids into a text, U+FFFD for bytes that are none; special ids vanish."""
        data = bytes(one - BYTE_OFFSET for one in body.tokens if one >= BYTE_OFFSET)
        return {"prompt": data.decode("utf-8", errors="replace")}

    @app.get("/tokenizer_info")
    async def tokenizer_info() -> dict[str, Any]:
        """Describe the vocabulary: 256 bytes, and four special ids."""
        return {
            "tokenizer_class": "bytes",
            "vocab_size": VOCABULARY_SIZE,
            "byte_offset": BYTE_OFFSET,
            "bos_token": BOS_NAME,
            "bos_token_id": BOS_ID,
            "eos_token": EOS_NAME,
            "eos_token_id": SPECIAL_IDS[EOS_NAME],
            "pad_token": None,
            "chat_template": TEMPLATE,
            "model_max_length": _longest(state),
        }


def _longest(state: State) -> int:
    return state.config.max_prompt_bytes + state.config.max_new_bytes


def _add_page(app: FastAPI, state: State) -> None:
    """Add the page, and what it asks."""

    @app.get("/api/model")
    async def describe_model() -> dict[str, Any]:
        """Describe the model to the page."""
        return texts.describe_model(state)

    @app.post("/api/patch")
    async def show_patches(body: PatchRequest, request: Request) -> Response:
        """Show how a text falls into patches, and what the model expects at every byte."""
        return JSONResponse(await unless_gone(request, texts.show_patches(state, body), state.metrics))

    @app.post("/api/alternatives")
    async def show_alternatives(body: AlternativesRequest, request: Request) -> Response:
        """Show what may follow a text."""
        return JSONResponse(await unless_gone(request, texts.show_alternatives(state, body), state.metrics))

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return _file("index.html")

    @app.get("/page/{name}", include_in_schema=False)
    async def page_file(name: str) -> Response:
        return _file(name)


def _file(name: str) -> Response:
    """Return a file of the page, if it is one: names come from a list, and never from a request."""
    file = page_files().get(name)
    if file is None:
        raise APIError("the page has no such file; / is its start", status=404, code="unknown_path")
    content_type, content = file
    return Response(content, media_type=content_type)


def _add_operation(app: FastAPI, state: State) -> None:
    """Add the paths for the operator of the server: health and metrics."""

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Return that the server answers."""
        if not state.worker.is_alive:
            raise APIError("the worker has ended; start the server again", status=503, code="worker_ended")
        return {"status": "ok"}

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Return what Prometheus reads."""
        return PlainTextResponse(state.metrics.text(), headers={"Content-Type": CONTENT_TYPE})
