"""What a first byte waits for."""

import subprocess
import sys

FIRST_BYTE = """
import sys
import blt
lm = blt.ByteLM.from_pretrained()
lm.generate("Once", max_new_bytes=1)
print(*sorted({"torch._dynamo", "sympy"} & sys.modules.keys()))
"""


def test_a_first_byte_needs_neither_pytorchs_compiler_nor_what_that_imports():
    done = subprocess.run([sys.executable, "-c", FIRST_BYTE], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
