"""The command line and a model on the Hub, in a process of its own, told by `huggingface_hub`'s variables."""

import os
import subprocess
import sys

import pytest

from hub_stand_in import Hub


@pytest.fixture
def hub():
    stand_in = Hub()
    yield stand_in
    stand_in.stop()


def test_a_model_is_used_by_its_name_and_then_offline(hub, tiny_folder, tmp_path):
    hub.add("you/tiny", tiny_folder)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    told = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}

    def run(name, **more):
        words = [
            sys.executable,
            "-m",
            "blt",
            "generate",
            "--model",
            name,
            "--prompt",
            "Tom",
            "--max-new",
            "5",
            "--seed",
            "0",
        ]
        environment = kept | told | {"NO_PROXY": "127.0.0.1,localhost"} | more
        return subprocess.run(words, env=environment, capture_output=True, check=False)

    online = run("you/tiny")
    assert online.returncode == 0, online.stderr
    assert online.stdout.startswith(b"Tom")
    count = len(hub.requests)
    offline = run("you/tiny", HF_HUB_OFFLINE="1")
    assert (offline.returncode, offline.stdout) == (0, online.stdout)
    missing = run("you/none", HF_HUB_OFFLINE="1")
    assert missing.returncode == 2
    assert missing.stderr.startswith(b"blt: you/none: no such folder, and not to be had from the Hub: it is not whole")
    assert missing.stderr.count(b"\n") == 1
    assert len(hub.requests) == count
