"""Arguments of `ByteLM` that nothing reads, or that are of another type, are refused in one line."""

import subprocess
import sys

import pytest

from blt.api import ByteLM
from blt.errors import ConfigurationError

WRONG = """
import sys
import blt
from blt.errors import BLTError

lm = blt.ByteLM.from_pretrained(sys.argv[1])
for call in (
    lambda: lm.score(5),
    lambda: lm.patch(None),
    lambda: lm.generate(["Tom"]),
    lambda: list(lm.stream(5.0)),
    lambda: lm.generate("Tom", stop=5),
    lambda: lm.generate("Tom", seed="1"),
    lambda: lm.save_pretrained(sys.argv[1], max_shard_bytes="1GB"),
    lambda: lm.save_pretrained(sys.argv[1], max_shard_bytes=True),
    lambda: blt.ByteLM.from_pretrained(sys.argv[1], device=None),
):
    try:
        call()
    except BLTError as error:
        assert "expected" in str(error), error
    else:
        raise SystemExit("was taken")
"""


def test_values_of_another_type_are_told(tiny_folder):  # in a process of its own, where no test hook checks types first
    done = subprocess.run([sys.executable, "-c", WRONG, tiny_folder], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("options", "said"),
    [({"dtpye": "int8"}, "dtpye: no such option; known: dtype, device"), ({"revision": "main"}, "revision: ")],
)
@pytest.mark.parametrize("bundled", [False, True])
def test_options_that_nothing_reads_are_refused_of_folders_too(tiny_folder, options, said, bundled):
    with pytest.raises(ConfigurationError, match=said):
        ByteLM.from_pretrained(None if bundled else tiny_folder, **options)


@pytest.mark.parametrize("device", ["meta", "nonsense", "cuda:99"])
def test_a_device_that_cannot_be_used_is_told(tiny_folder, device):
    with pytest.raises(ConfigurationError, match=f"device: '{device}' cannot be used"):
        ByteLM.from_pretrained(tiny_folder, device=device)
