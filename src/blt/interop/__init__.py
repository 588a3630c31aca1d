"""Weights in and out: the forms that other software keeps a BLT in.

In: a folder of theirs. Out: a `ByteLM`, and back. Beside `blt.training`; needs none of the other software installed.
"""

from blt.interop.published import read_published
from blt.interop.transformers_blt import last_byte_note, read_transformers, write_transformers

__all__ = ["last_byte_note", "read_published", "read_transformers", "write_transformers"]
