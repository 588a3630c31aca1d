"""Numeric operations: each has one name, a reference in PyTorch, and where it pays a native kernel for the CPU.

`registry.py` is the one place that chooses between the two; callers know nothing of hardware. `native` holds the
kernels, compiled once on the user's machine by its own compiler.
"""

from blt.ops.attention import PackedRows, Runs, attend_to_runs, attention_mask_bytes, pack_rows
from blt.ops.copies import compile_mode, is_waited_for, to_device
from blt.ops.cross_attention import attend_to_slots, attend_to_vectors, attend_within_slots
from blt.ops.embedding import embedding_bag
from blt.ops.feed_forward import swiglu
from blt.ops.linear import linear
from blt.ops.muon import muon_step, orthogonalise
from blt.ops.ngram_hash import PRIMES, HostHashes, hash_ngrams
from blt.ops.norm import rms_norm
from blt.ops.precision import fast_matmul_dtype, without_autocast
from blt.ops.registry import OPERATORS, Operator, only_references
from blt.ops.residual import residual_add
from blt.ops.rotary import RotaryTable, rotary_frequencies, rotary_table, rotary_table_of, rotate
from blt.ops.segments import in_last_segment, run_positions, segment_max, segment_softmax, segment_sum, take

__all__ = [
    "OPERATORS",
    "PRIMES",
    "HostHashes",
    "Operator",
    "PackedRows",
    "RotaryTable",
    "Runs",
    "attend_to_runs",
    "attend_to_slots",
    "attend_to_vectors",
    "attend_within_slots",
    "attention_mask_bytes",
    "compile_mode",
    "embedding_bag",
    "fast_matmul_dtype",
    "hash_ngrams",
    "in_last_segment",
    "is_waited_for",
    "linear",
    "muon_step",
    "only_references",
    "orthogonalise",
    "pack_rows",
    "residual_add",
    "rms_norm",
    "rotary_frequencies",
    "rotary_table",
    "rotary_table_of",
    "rotate",
    "run_positions",
    "segment_max",
    "segment_softmax",
    "segment_sum",
    "swiglu",
    "take",
    "to_device",
    "without_autocast",
]
