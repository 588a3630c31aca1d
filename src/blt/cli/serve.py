"""`blt serve`: answer by OpenAI's API over HTTP."""

import os
import socket
import sys
from pathlib import Path

import click

from blt.api import ByteLM
from blt.cli.options import Decorator, device_option, dtype_option, model_option, refuse_unread
from blt.cli.types import Count, Name
from blt.configuration import check
from blt.errors import ConfigurationError, DataError, MissingExtraError
from blt.lm.language_model import LOADED_AS

_SWITCH_SECONDS = 0.0005
"""How soon a thread lets another have Python: the model's thread comes back from native code every few milliseconds."""
KEY_VARIABLE = "BLT_API_KEY"
"""The variable of the environment that a key may stand in."""


def _limit(name: str, default: int, help: str) -> Decorator:
    return click.option(
        "--" + name.replace("_", "-"), type=Count(min=None), default=default, show_default=True, help=help
    )


@click.command()
@model_option
@device_option
@dtype_option(*LOADED_AS)
@click.option("--host", type=Name(), default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=Count(0, 65535), default=8000, show_default=True, help="0 takes any that is free.")
@click.option(
    "--served-name", type=Name(), metavar="NAME", help="What answers call the model; its own name by default."
)
@click.option(
    "--api-key-file",
    type=Name(),
    metavar="FILE",
    help=f"File that holds the key that requests must bring; {KEY_VARIABLE} may hold it instead.",
)
@click.option("--no-key", is_flag=True, help="Let other machines use the server without a key.")
@_limit("max_rows", 32, "Texts that are written at once.")
@_limit("max_waiting", 256, "Texts that may wait; further requests get 429.")
@_limit("max_prompt_bytes", 65536, "Longest prompt.")
@_limit("max_new_bytes", 4096, "Largest max_tokens.")
@_limit("max_read_bytes", 16000, "Longest text that is scored: echo with logprobs, the page.")
@_limit("max_body_bytes", 4194304, "Largest body of a request.")
@_limit("max_seconds", 600, "Longest time to the end of an answer.")
@_limit("prompt_bytes_per_step", 512, "Bytes of prompts read between two bytes of what is being written.")
@_limit("stream_interval_ms", 40, "Least time between two pieces of a stream.")
@click.option("--drain-seconds", type=Count(), default=60, show_default=True, help="To end answers in after SIGTERM.")
@click.pass_context
def serve(
    context: click.Context,
    /,
    model: str | None,
    device: str,
    dtype: str,
    host: str,
    port: int,
    served_name: str | None,
    api_key_file: str | None,
    no_key: bool,
    drain_seconds: int,
    **limits: int,
) -> None:
    """Answer by OpenAI's API over HTTP, and show a page at /.

    What a request gets is the same alone and in any company. Only this machine can reach the server unless --host says
    otherwise, which needs a key or --no-key. Logs hold no path, prompt or key. SIGTERM ends the server once what it has
    begun is answered.
    """
    try:
        from blt.serving import ServingConfig, create_app
        from blt.serving.server import allowed_hosts, refuse_open_address, server_of
    except MissingExtraError as error:
        raise ConfigurationError(str(error)) from None
    key = _key(api_key_file)
    refuse_unread(context, "no_key", unless=key is None, reason="there is a key; leave one of them out")
    refuse_open_address(host, has_key=key is not None, needs_no_key=no_key)
    config = ServingConfig(
        model_name=served_name or _name(model),
        api_key=key,
        allowed_hosts=allowed_hosts(host, has_key=key is not None),
        **limits,
    )
    with _listening(host, port) as listening:
        lm = ByteLM.from_pretrained(model, dtype=dtype, device=device)
        server = server_of(create_app(lm, config), host=host, port=port, drain_seconds=drain_seconds)
        at = f"{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"
        click.echo(f"{config.model_name}: http://{at} (OpenAI's API under /v1)", err=True)
        sys.setswitchinterval(_SWITCH_SECONDS)
        server.run(sockets=[listening])


def _key(file: str | None) -> str | None:
    """Return the key, from a file or from the environment."""
    if file is None:
        key = os.environ.get(KEY_VARIABLE)
        check(key is None or bool(key.strip()), f"{KEY_VARIABLE}: it is empty; set it to a key, or unset it")
        return key
    try:
        key = Path(file).read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        raise DataError(f"--api-key-file: {file} is no text; give a file that holds one key") from None
    check(bool(key), f"--api-key-file: {file} is empty; write a key into it")
    return key


def _name(model: str | None) -> str:
    """Return what a model is called: its folder's name, or its name on the Hub."""
    if model is None:
        return "bundled"
    return Path(model).resolve().name if Path(model).is_dir() else model


def _listening(host: str, port: int) -> socket.socket:
    """Take an address, before a model is loaded for nothing.

    Raises:
        ConfigurationError: it cannot be had.
    """
    bare = host.strip("[]")
    try:
        return socket.create_server(
            (bare, port), family=socket.AF_INET6 if ":" in bare else socket.AF_INET, backlog=2048
        )
    except (OSError, UnicodeError) as error:
        number = error.errno if isinstance(error, OSError) else None
        reason = os.strerror(number) if number and number > 0 else str(error)
        raise ConfigurationError(f"--host {host} --port {port}: {reason}; give another, or --port 0") from None
