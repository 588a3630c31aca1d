"""llama.cpp's server on a Llama with new weights, for `serving.py`; runs in an environment of its own.

    pip install 'llama-cpp-python[server]' gguf

A token is 4 bytes, in prompts and in what is written. The server answers one request after another, as it always does.
"""

import json
import sys
import tempfile
from pathlib import Path

import uvicorn
from beside_llama_cpp_worker import write
from llama_cpp.server.app import create_app
from llama_cpp.server.settings import ModelSettings, ServerSettings


def main(port: int, size: str, texts: list[str], *, threads: int) -> None:
    """Serve a model named `kind:layers:dim` at a port of this machine."""
    kind, layers, dim = size.split(":")
    pieces = sorted({text[start : start + 4] for text in texts for start in range(0, len(text), 4)})
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.gguf"
        write(path, kind=kind, dim=int(dim), layers=int(layers), pieces=pieces)
        model = ModelSettings(
            model=str(path), n_ctx=2048, n_threads=threads, n_threads_batch=threads, logits_all=False, verbose=False
        )
        app = create_app(server_settings=ServerSettings(interrupt_requests=False), model_settings=[model])
        uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", access_log=False)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]), threads=int(sys.argv[4]))
