"""Train on two hosts, network namespaces of this machine; cut their link and restore it; kill one and start it again.

    sudo python tests/two_hosts.py          some minutes; needs the right to make network namespaces

The hosts meet over TCP and share nothing but the disk. Then must hold: while the link is cut for a few seconds the run
waits and goes on; after all processes of one host were killed, and torchrun was started again where it had ended, both
go on from the last checkpoint; the losses and the model are those of one process.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch

from blt.training import load_recipe, run_recipe
from kill_ranks import compare, fields, last_saved, wait_for
from tiny_training import write_recipe

HOSTS = {"blt-a": "10.77.0.1", "blt-b": "10.77.0.2"}
STEPS = 60
CUT_SECONDS = 8


def ip(*arguments: str) -> None:
    """Run `ip`."""
    subprocess.run(["ip", *arguments], check=True)


def link_of(host: str) -> str:
    """Return the name of a host's end of the cable."""
    return f"{host}-0"


@contextmanager
def hosts() -> Iterator[None]:
    """Make both hosts and the cable between them; take them away after."""
    try:
        for host in HOSTS:
            ip("netns", "add", host)
        a, b = HOSTS
        ip("link", "add", link_of(a), "netns", a, "type", "veth", "peer", "name", link_of(b), "netns", b)
        for host, address in HOSTS.items():
            ip("-n", host, "address", "add", f"{address}/24", "dev", link_of(host))
            ip("-n", host, "link", "set", link_of(host), "up")
            ip("-n", host, "link", "set", "lo", "up")
        yield
    finally:
        for host in HOSTS:
            subprocess.run(["ip", "netns", "delete", host], check=False)


def start(host: str, recipe: Path, out: Path, *, changed: dict[str, str]) -> subprocess.Popen[str]:
    """Start a host's torchrun, which leads a process group of its own."""
    first = HOSTS["blt-a"]
    command = ["ip", "netns", "exec", host, sys.executable, "-m", "torch.distributed.run", "--nnodes", "2"]
    command += ["--nproc-per-node", "1", "--max-restarts", "10", "--monitor-interval", "0.1", "--rdzv-backend", "c10d"]
    command += ["--rdzv-endpoint", f"{first}:29555", "--rdzv-id", "two-hosts", "--local-addr", HOSTS[host]]
    command += ["--rdzv-conf", f"is_host={int(host == 'blt-a')}", "-m", "blt", "train", str(recipe), "--out", str(out)]
    command += [part for name, value in changed.items() for part in (f"--{name}", value)]
    environment = os.environ | {"GLOO_SOCKET_IFNAME": link_of(host), "OMP_NUM_THREADS": "1"}
    with out.with_suffix(".log" if host == "blt-a" else ".b.log").open("a") as log:
        return subprocess.Popen(
            command, env=environment, stdout=log, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )


def supervise(running: dict[str, subprocess.Popen[str]], again: Callable[[str], subprocess.Popen[str]]) -> None:
    """Start torchrun again on a host where it fails, as a scheduler does, until it has ended well on all."""
    for _ in range(20):
        for host, process in running.items():
            while process.poll() is None and all(other.poll() in (None, 0) for other in running.values()):
                time.sleep(0.2)
            if process.poll():
                time.sleep(2)
                print(f"{host}: torchrun ended with {process.returncode} and is started again")
                running[host] = again(host)
        if all(process.poll() == 0 for process in running.values()):
            return
    raise AssertionError("torchrun fails again and again")


def processes_in(host: str) -> list[int]:
    """Return all processes of a host."""
    listed = subprocess.run(["ip", "netns", "pids", host], capture_output=True, text=True, check=True)
    return [int(number) for number in listed.stdout.split()]


def walk(root: Path) -> None:
    """Run in one process, then on two hosts that are disturbed, and compare."""
    recipe, changed = write_recipe(root), fields(steps=STEPS, parallel="fsdp")
    whole, disturbed = root / "whole", root / "killed"
    run_recipe(load_recipe(recipe, overrides=changed | {"out": str(whole)}))
    running = {host: start(host, recipe, disturbed, changed=changed) for host in HOSTS}
    try:
        assert wait_for(lambda: last_saved(disturbed) >= 8, running["blt-a"])
        ip("-n", "blt-b", "link", "set", link_of("blt-b"), "down")
        time.sleep(CUT_SECONDS)
        before = last_saved(disturbed)
        ip("-n", "blt-b", "link", "set", link_of("blt-b"), "up")
        print(f"cut off for {CUT_SECONDS} s, restored at the checkpoint of step {before}")
        assert wait_for(lambda: last_saved(disturbed) > before, running["blt-a"])
        for process in processes_in("blt-b"):
            os.kill(process, signal.SIGKILL)
        before = last_saved(disturbed)
        print(f"host b killed at the checkpoint of step {before}")
        supervise(running, lambda host: start(host, recipe, disturbed, changed=changed))
    finally:
        for host in HOSTS:
            for process in processes_in(host):
                os.kill(process, signal.SIGKILL)
    compare(whole, disturbed, [])
    went_on = re.findall(r"blt: going on after step (\d+)", disturbed.with_suffix(".log").read_text(errors="replace"))
    assert any(int(step) >= before for step in went_on), went_on
    print(f"went on after steps {', '.join(went_on)}; the same losses and the same model")


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="two-hosts-") as folder, hosts():
        walk(Path(folder))
