import subprocess
import sys

import pytest
import torch

from blt.distributed import PATIENCE, World, choose_device, joined_world
from blt.errors import ConfigurationError
from ranks import environments


def test_a_process_without_torchrun_is_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined_world(torch.device("cpu")) as world:
        assert world == World()
        assert world.is_main
        assert world.sum(3) == 3
        world.wait()
        assert world.sums(3, 4.5) == [3, 4.5]
        assert world.from_main(2.0) == 2


def test_a_device_is_what_its_name_says():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["gpu", "cpu:x", ""])
def test_a_device_that_is_not_there_is_one_clear_line(name):
    with pytest.raises(ConfigurationError, match=rf"device: '{name}' cannot be used \(.*\); try 'cpu' or 'auto'"):
        choose_device(name)


PROGRAM = """
import sys, time
from datetime import timedelta
import torch
from blt.distributed import world as distributed
distributed.PATIENCE = timedelta(seconds=4)
distributed.LIFE_SECONDS = 0.2

def work(show_life):
    for _ in range(int(float(sys.argv[1]) / 0.1)):
        time.sleep(0.1)
        if sys.argv[2] == "lively":
            show_life()
    if sys.argv[2] == "fails":
        raise ValueError("on purpose")
    print("worked", flush=True)

with distributed.joined_world(torch.device("cpu")) as world:
    print(world.lead(work), flush=True)
"""


def run(*arguments):
    """Run the program in two processes; returns what each has printed, and its status."""
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    with environments(2) as of_ranks:
        processes = [
            subprocess.Popen(command, env=one, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for one in of_ranks
        ]
        try:
            return [(process.communicate()[0].split(), process.returncode) for process in processes]
        finally:
            for process in processes:
                process.kill()


def test_the_main_process_may_work_longer_than_the_others_wait_if_it_shows_life():
    assert run(7, "lively") == [(["worked", "True"], 0), (["True"], 0)]


def test_a_main_process_that_shows_no_life_is_not_waited_for_for_ever():
    (_, (said, status)) = run(20, "silent")
    assert said == []
    assert status != 0


def test_a_failure_of_the_main_process_is_told_to_the_others():
    (main, (said, status)) = run(0.5, "fails")
    assert main == ([], 1)
    assert (said, status) == (["False"], 0)


def test_patience_is_minutes_not_a_day():
    assert PATIENCE.total_seconds() <= 1800


def test_alone_the_work_is_just_done():
    done = []
    assert World().lead(lambda show_life: (show_life(), done.append(1)))
    assert done == [1]
    with pytest.raises(ZeroDivisionError):
        World().lead(lambda show_life: 1 / 0)
