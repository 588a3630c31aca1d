import importlib.util
import socket

import pytest

from blt.cli import main
from blt.errors import ConfigurationError
from blt.serving.cluster import ClusterConfig, _check_room


def test_this_machines_processors_are_divided_among_replicas(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    assert ClusterConfig(replicas=2).cpus == 4
    assert ClusterConfig(replicas=3).cpus == 2
    assert ClusterConfig(replicas=9).cpus == 1
    assert ClusterConfig(replicas=9, replica_cpus=5).cpus == 5
    assert ClusterConfig(replicas=2, address="host:6379").cpus == 1


@pytest.mark.parametrize("options", [{"replicas": 0}, {"replicas": 1, "replica_cpus": 0}])
def test_no_replicas_and_no_processors_are_refused(options):
    with pytest.raises(ConfigurationError, match="at least 1, got 0"):
        ClusterConfig(**options)


def test_replicas_without_room_are_refused_instead_of_waited_for():
    cluster = ClusterConfig(replicas=3, replica_cpus=2)
    _check_room({"CPU": 6.0}, cluster, needs_gpu=False)
    with pytest.raises(ConfigurationError, match="they need 6 CPUs, of which Ray has 5; give fewer"):
        _check_room({"CPU": 5.0}, cluster, needs_gpu=False)
    with pytest.raises(ConfigurationError, match="they need 3 GPUs, of which Ray has 1"):
        _check_room({"CPU": 6.0, "GPU": 1.0}, cluster, needs_gpu=True)


def refused(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["serve", *arguments])
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_without_the_extra_one_line_says_how_to_install_it(monkeypatch, capsys):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ray" else found(name))
    error = refused(["--replicas", "2"], capsys)
    assert "--replicas needs the package 'ray': pip install 'blt-llm[ray]'" in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.parametrize("address", ["ray://127.0.0.1:10001", "localhost", "http://localhost:8000", "host:port"])
def test_an_address_that_is_no_clusters_is_refused(address, capsys):
    assert "give HOST:PORT of the cluster's head" in refused(["--replicas", "1", "--ray-address", address], capsys)


def test_a_cluster_that_is_not_there_is_refused_at_once(capsys):
    pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    error = refused(["--port", "0", "--replicas", "1", "--ray-address", address], capsys)
    assert f"--ray-address {address}: " in error
    assert "refused" in error


@pytest.mark.parametrize("option", ["--ray-address=localhost:1", "--replica-cpus=2"])
def test_options_of_replicas_are_refused_where_there_are_none(option, capsys):
    assert "goes with --replicas alone" in refused([option], capsys)
