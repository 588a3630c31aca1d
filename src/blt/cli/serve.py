"""`blt serve`: answer by OpenAI's API over HTTP."""

import contextlib
import os
import re
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from blt.api import ByteLM
from blt.cli.options import Decorator, device_option, dtype_option, model_option, refuse_unread, static_option
from blt.cli.types import Count, Name
from blt.configuration import check
from blt.errors import ConfigurationError, DataError, MissingExtraError
from blt.lm.language_model import LOADED_AS

if TYPE_CHECKING:
    from starlette.types import ASGIApp

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
@static_option
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
@click.option(
    "--replicas",
    type=Count(),
    metavar="N",
    help="Processes that answer, each with a model of its own, on Ray Serve; limits are those of each.",
)
@click.option(
    "--ray-address",
    type=Name(),
    metavar="ADDRESS",
    help="HOST:PORT of a Ray cluster that runs the replicas; this machine alone by default.",
)
@click.option(
    "--replica-cpus",
    type=Count(),
    metavar="N",
    help="Processors of each replica; this machine's divided by --replicas, or 1 with --ray-address, by default.",
)
@click.option("--drain-seconds", type=Count(), default=60, show_default=True, help="To end answers in after SIGTERM.")
@click.pass_context
def serve(
    context: click.Context,
    /,
    model: str | None,
    device: str,
    dtype: str,
    is_static: bool,
    host: str,
    port: int,
    served_name: str | None,
    api_key_file: str | None,
    no_key: bool,
    drain_seconds: int,
    replicas: int | None,
    ray_address: str | None,
    replica_cpus: int | None,
    **limits: int,
) -> None:
    """Answer by OpenAI's API over HTTP, and show a page at /.

    What a request gets is the same alone and in any company. Only this machine can reach the server unless --host says
    otherwise, which needs a key or --no-key. Logs hold no path, prompt or key. SIGTERM ends the server once what it has
    begun is answered.
    """
    try:
        from blt.serving import ServingConfig, create_app
        from blt.serving.cluster import ClusterConfig, check_ray, running_replicas
        from blt.serving.front import create_front
        from blt.serving.server import SWITCH_SECONDS, allowed_hosts, refuse_open_address, server_of
    except MissingExtraError as error:
        raise ConfigurationError(str(error)) from None
    key = _key(api_key_file)
    refuse_unread(context, "no_key", unless=key is None, reason="there is a key; leave one of them out")
    refuse_unread(
        context, "ray_address", "replica_cpus", unless=replicas is not None, reason="goes with --replicas alone"
    )
    refuse_open_address(host, has_key=key is not None, needs_no_key=no_key)
    config = ServingConfig(
        model_name=served_name or _name(model),
        api_key=key,
        allowed_hosts=allowed_hosts(host, has_key=key is not None),
        static=is_static,
        **limits,
    )
    cluster = None
    if replicas is not None:
        check_ray()
        cluster = ClusterConfig(replicas=replicas, address=ray_address, replica_cpus=replica_cpus)
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(_listening(host, port))
        address = f"{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"
        lm = ByteLM.from_pretrained(model, dtype=dtype, device=device if cluster is None else "cpu")
        if cluster is None:
            app: ASGIApp = create_app(lm, config)
        else:
            del lm  # it was read to refuse one that cannot be, before Ray takes its time to start
            started = running_replicas(
                _anywhere(model), dtype=dtype, device=device, config=config, cluster=cluster, name=_own_name(address)
            )
            app = create_front(stack.enter_context(started), config)
        server = server_of(app, host=host, port=port, drain_seconds=drain_seconds)
        click.echo(f"{config.model_name}: http://{address} (OpenAI's API under /v1)", err=True)
        sys.setswitchinterval(SWITCH_SECONDS)
        server.run(sockets=[listening])


def _anywhere(model: str | None) -> str | None:
    """Return the name of a model for a process in another folder."""
    return str(Path(model).resolve()) if model is not None and Path(model).is_dir() else model


def _own_name(address: str) -> str:
    """Return the name of this server's replicas in a cluster: one that is started again replaces what it has left."""
    return "blt-" + re.sub(r"[^A-Za-z0-9]+", "-", f"{socket.gethostname()}-{address}")


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
