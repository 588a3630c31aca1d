"""Replicas on Ray Serve, which starts them, chooses one for each request, and starts another where one has ended.

No proxy of Ray takes part: clients talk to the front alone (`front.py`), so what guards a single server guards these.
A cluster of one's own listens on this machine's loopback addresses alone, asks for a token that only its processes
know, and is gone with its server.
"""

import contextlib
import importlib.util
import logging
import os
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from starlette.types import Message, Scope

from blt.api import ByteLM
from blt.configuration import check
from blt.distributed import num_processors
from blt.errors import ConfigurationError, MissingExtraError, one_line
from blt.serving.app import create_app
from blt.serving.config import ServingConfig
from blt.serving.errors import APIError
from blt.serving.metrics import Family
from blt.serving.replica import Replica
from blt.serving.server import SWITCH_SECONDS

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle

_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Set to 0, Ray's processes listen on loopback alone, as they do on systems on which it has no clusters."""
_STORE_BYTES = 128 * 2**20
"""Shared memory of a cluster of one's own, for bodies of requests."""
_SMALL_REQUESTS = 64
"""Requests that a replica takes beyond those that write texts: it refuses what is too much by itself, with 429."""
_FAMILIES_SECONDS = _CONNECT_SECONDS = 5
_LOST = "the replica that was answering has ended; send the request again"


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """How many replicas there are, and where."""

    replicas: int
    """Processes that answer, each with a model of its own."""
    address: str | None = None
    """HOST:PORT of a Ray cluster's head, or `auto` on one of its machines; None starts one of this machine alone."""
    replica_cpus: int | None = None
    """Processors of each replica; by default this machine's, divided among them, and 1 in a cluster with an address."""

    def __post_init__(self) -> None:
        check(self.replicas >= 1, f"replicas: at least 1, got {self.replicas}")
        check(self.replica_cpus is None or self.replica_cpus >= 1, f"replica_cpus: at least 1, got {self.replica_cpus}")

        host, colon, port = (self.address or "auto").rpartition(":")
        is_usable = self.address in (None, "auto") or ("//" not in host and bool(colon) and port.isdecimal())
        check(
            is_usable,
            f"address: {self.address!r}; give HOST:PORT of the cluster's head, or auto on one of its machines",
        )

    @property
    def cpus(self) -> int:
        """Processors of each replica."""
        if self.replica_cpus is not None:
            return self.replica_cpus
        return max(1, num_processors() // self.replicas) if self.address is None else 1


class RayReplica:
    """A replica as Ray Serve runs it.

    Args:
        model: what `ByteLM.from_pretrained` takes.
        dtype: of the weights.
        device: as PyTorch names it.
        config: what is allowed.
    """

    async def __init__(  # type: ignore[misc]  # Ray Serve waits for it
        self, model: str | None, dtype: str, device: str, config: ServingConfig
    ) -> None:
        from ray import serve

        sys.setswitchinterval(SWITCH_SECONDS)
        _keep_to_loopback()
        lm = ByteLM.from_pretrained(model, dtype=dtype, device=device)
        self._replica = Replica(create_app(lm, config), name=serve.get_replica_context().replica_id.unique_id)
        await self._replica.start()

    async def answer(self, scope: Scope, body: bytes) -> AsyncGenerator[Sequence[Message], None]:
        """Answer a request."""
        async with contextlib.aclosing(self._replica.answer(scope, body)) as answer:
            async for messages in answer:
                yield messages

    async def families(self) -> list[Family]:
        """Return what has been counted here."""
        return self._replica.families()

    async def paths(self) -> list[str]:
        """Return the paths of the application."""
        return self._replica.paths

    async def check_health(self) -> None:
        """Make Ray Serve start another process in place of one whose worker has ended."""
        if not self._replica.is_alive:
            raise RuntimeError("the worker has ended")


class RayReplicas:
    """All of them, as a front calls them.

    Args:
        handle: of the deployment.
    """

    def __init__(self, handle: "DeploymentHandle[Any]") -> None:
        self._handle = handle
        self._answers = handle.options(method_name="answer", stream=True)

    async def answer(self, scope: Scope, body: bytes) -> AsyncGenerator[Sequence[Message], None]:
        """Send a request to the one of two that has less to do.

        Raises:
            APIError: it has ended before its answer was whole, or too many requests wait for one.
        """
        from ray.exceptions import RayError, RayTaskError
        from ray.serve.exceptions import BackPressureError, RayServeException

        answer: Any = self._answers.remote(scope, body)
        try:
            async for messages in answer:
                yield messages
        except BackPressureError:
            message = "more requests wait than the replicas take; try again in 1 s"
            raise APIError(message, status=429, code="overloaded", retry_after=1) from None
        except RayTaskError:
            raise  # a fault of ours, not of the process
        except (RayError, RayServeException):
            raise APIError(_LOST, status=503, code="replica_lost", retry_after=1) from None
        finally:
            answer.cancel()

    async def families(self) -> list[list[Family]]:
        """Return what each has counted, but for those that have ended.

        Raises:
            TimeoutError: one does not answer; Ray then has the answers of none.
        """
        found = await self._handle.broadcast("families").results_async(
            timeout_s=_FAMILIES_SECONDS, return_exceptions=True
        )
        return [one for one in found if not isinstance(one, BaseException)]

    def paths(self) -> list[str]:
        """Return the paths of the application, before anything is served."""
        paths: list[str] = self._handle.options(method_name="paths").remote().result()
        return paths


def check_ray() -> None:
    """Refuse replicas where Ray is missing; it is not imported, since it reads the environment that is set later.

    Raises:
        MissingExtraError: it is not installed.
    """
    if importlib.util.find_spec("ray") is None:
        raise MissingExtraError("ray", extra="ray", purpose="--replicas")


@contextlib.contextmanager
def running_replicas(
    model: str | None, *, dtype: str, device: str, config: ServingConfig, cluster: ClusterConfig, name: str
) -> Iterator[RayReplicas]:
    """Run replicas for as long as the block lasts.

    Args:
        model: what `ByteLM.from_pretrained` takes, on every machine of the cluster.
        dtype: of the weights.
        device: as PyTorch names it.
        config: what is allowed; `max_rows` and `max_waiting` are those of each replica.
        cluster: how many replicas, and where.
        name: of these replicas in the cluster; those of an earlier server of this name are replaced.

    Raises:
        ConfigurationError: the cluster cannot be reached, has no room for them, or they do not start.
    """
    needs_gpu = device.startswith("cuda")
    device = "cuda" if needs_gpu else device  # Ray shows each replica one GPU, whose number there is 0
    with _joined(cluster, needs_gpu=needs_gpu):
        from ray import serve

        quiet = {"enable_access_log": False, "log_level": "ERROR"}  # requests hold prompts
        serve.start(proxy_location="Disabled", logging_config=quiet)
        deploy = serve.deployment(
            name="replica",
            num_replicas=cluster.replicas,
            ray_actor_options={"num_cpus": cluster.cpus, "num_gpus": int(needs_gpu)},
            max_ongoing_requests=config.max_rows + config.max_waiting + _SMALL_REQUESTS,
            max_queued_requests=cluster.replicas * (config.max_rows + config.max_waiting),
            health_check_period_s=1,
            health_check_timeout_s=30,
            graceful_shutdown_timeout_s=5,
        )
        unguarded = replace(config, api_key=None, allowed_hosts=None)  # the front has checked both
        application = deploy(RayReplica).bind(model, dtype, device, unguarded)
        try:
            try:
                handle = serve.run(application, name=name, route_prefix=None, logging_config=quiet)
            except RuntimeError as error:
                raise ConfigurationError(f"the replicas do not start: {one_line(str(error))}") from None
            yield RayReplicas(handle)
        finally:
            if cluster.address is not None:  # one of our own is gone in a moment
                with contextlib.suppress(Exception):  # such as of a cluster that is gone by now
                    serve.delete(name)


@contextlib.contextmanager
def _joined(cluster: ClusterConfig, *, needs_gpu: bool) -> Iterator[None]:
    """Be part of a cluster, of this machine alone or of the one that has an address.

    Raises:
        ConfigurationError: the cluster cannot be reached, or will never have room for the replicas.
    """
    with _one_line_errors(cluster):
        _connect_once(cluster.address)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # Ray would tell its makers of this use
    folder = None
    options: dict[str, Any] = {"address": cluster.address}
    if cluster.address is None:
        folder = tempfile.mkdtemp(prefix="blt-ray-")
        options = _own_cluster(cluster, folder)
    with _one_line_errors(cluster):  # imported here, since Ray reads the environment
        import ray
        import ray.serve
    try:
        with _one_line_errors(cluster):
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
        for name in ("ray", "ray.serve"):
            logging.getLogger(name).setLevel(logging.ERROR)
        resources: Mapping[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        _check_room(resources, cluster, needs_gpu=needs_gpu)
        yield
    finally:
        ray.shutdown()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _connect_once(address: str | None) -> None:
    """See whether anybody listens at an address; Ray itself would try for minutes.

    Raises:
        OSError: nobody does.
    """
    if address not in (None, "auto"):
        host, _, port = address.rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()


def _own_cluster(cluster: ClusterConfig, folder: str) -> dict[str, Any]:
    """Return options for a cluster that no other machine, and no other user of this one, can reach."""
    os.environ[_LOOPBACK] = "0"
    os.environ["RAY_AUTH_MODE"], os.environ["RAY_AUTH_TOKEN"] = "token", secrets.token_hex(32)
    return {
        "address": "local",
        "num_cpus": cluster.replicas * cluster.cpus,
        "include_dashboard": False,
        "object_store_memory": _STORE_BYTES,
        "_node_ip_address": "127.0.0.1",
        "_temp_dir": folder,
    }


def _keep_to_loopback() -> None:
    """Make a replica of a cluster of one's own listen on loopback alone, as all else of it does.

    Ray Serve opens a port for calls between deployments, of which there are none here, on every address of the machine.
    It asks for the token, so where another version of Ray does this elsewhere, that still guards it.
    """
    import ray.serve._private.replica as of_ray

    if os.environ.get(_LOOPBACK) == "0" and hasattr(of_ray, "add_port_to_grpc_server"):
        add = of_ray.add_port_to_grpc_server
        of_ray.add_port_to_grpc_server = lambda server, address: add(server, address.replace("[::]", "127.0.0.1"))


@contextlib.contextmanager
def _one_line_errors(cluster: ClusterConfig) -> Iterator[None]:
    """Raise whatever is wrong with a cluster as an error of one line; Ray raises many kinds.

    Raises:
        ConfigurationError: there is no cluster.
    """
    try:
        yield
    except Exception as error:  # noqa: BLE001 (Ray's errors have no common base, and ImportError is among them)
        where = "--replicas: no Ray here" if cluster.address is None else f"--ray-address {cluster.address}"
        raise ConfigurationError(f"{where}: {one_line(str(error)) or type(error).__name__}") from None


def _check_room(resources: Mapping[str, float], cluster: ClusterConfig, *, needs_gpu: bool) -> None:
    """Refuse replicas that the cluster has no room for: Ray would wait for more machines without a word.

    Raises:
        ConfigurationError: it has fewer processors, or GPUs, than they need.
    """
    needed = {"CPU": cluster.replicas * cluster.cpus} | ({"GPU": cluster.replicas} if needs_gpu else {})
    for name, count in needed.items():
        has = int(resources.get(name, 0))
        if has < count:
            raise ConfigurationError(
                f"--replicas {cluster.replicas}: they need {count} {name}s, of which Ray has {has}; give fewer"
                + (", or a smaller --replica-cpus" if name == "CPU" else ", or --device cpu")
            )
