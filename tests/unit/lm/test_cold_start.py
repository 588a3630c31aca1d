"""What a first byte waits for."""

import subprocess
import sys

import pytest

from blt.api import ByteLM

FIRST_BYTE = """
import sys
import blt
lm = blt.ByteLM.from_pretrained(*sys.argv[1:])
lm.generate("Once", max_new_bytes=1)
print(*sorted({"torch._dynamo", "sympy"} & sys.modules.keys()))
"""


@pytest.mark.parametrize("stored_as", [None, "int8", "int4"])
def test_a_first_byte_needs_neither_pytorchs_compiler_nor_what_that_imports(stored_as, tmp_path):
    folder = []
    if stored_as is not None:
        ByteLM.from_pretrained().save_pretrained(tmp_path / "small", dtype=stored_as)
        folder = [str(tmp_path / "small")]
    done = subprocess.run([sys.executable, "-c", FIRST_BYTE, *folder], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
