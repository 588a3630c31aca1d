"""The C interface of `core/api.h`, with its types declared."""

import ctypes
import functools
from pathlib import Path

from blt.errors import ConfigurationError, ModelFolderError
from blt.ops.native.build import load

CORE = Path(__file__).parent / "core"

Pointer, Size, Int32 = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
FLOAT32, BFLOAT16, INT8, INT4 = range(4)
"""How a matrix is stored."""
ALL, LAST, NONE = range(3)
"""Of which bytes logits are wanted."""


class Matrix(ctypes.Structure):
    """See `blt_matrix`."""

    _fields_ = (
        ("data", Pointer),
        ("scales", Pointer),
        ("block_scales", Pointer),
        ("outputs", Size),
        ("inputs", Size),
        ("stored", Int32),
    )


class Norm(ctypes.Structure):
    """See `blt_norm`."""

    _fields_ = (("weight", Pointer), ("width", Size), ("epsilon", ctypes.c_float))


class Layer(ctypes.Structure):
    """See `blt_layer`."""

    _fields_ = (
        ("attention_norm", Norm),
        ("feed_forward_norm", Norm),
        *((name, Matrix) for name in ("query", "key", "value", "output", "gate", "up", "down")),
    )


class Stack(ctypes.Structure):
    """See `blt_stack`."""

    _fields_ = (
        ("layers", ctypes.POINTER(Layer)),
        ("frequencies", Pointer),
        *((name, Size) for name in ("num_layers", "num_heads", "window")),
    )


class CrossAttention(ctypes.Structure):
    """See `blt_cross_attention`."""

    _fields_ = (
        ("query_norm", Norm),
        ("source_norm", Norm),
        *((name, Matrix) for name in ("query", "key", "value", "output")),
    )


class EntropySpec(ctypes.Structure):
    """See `blt_entropy_spec`."""

    _fields_ = (("bytes", Matrix), ("stack", Stack), ("norm", Norm), ("output", Matrix))


class ModelSpec(ctypes.Structure):
    """See `blt_model_spec`."""

    _fields_ = (
        ("bytes", Matrix),
        ("ngrams", Matrix),
        ("ngram_sizes", Pointer),
        ("primes", Pointer),
        *((name, Size) for name in ("num_ngram_sizes", "num_functions", "num_ngram_rows")),
        *((name, Stack) for name in ("encoder", "global_transformer", "decoder")),
        *((name, Matrix) for name in ("to_queries", "to_global", "from_global")),
        ("pooling", CrossAttention),
        ("reading", ctypes.POINTER(CrossAttention)),
        ("num_reading", Size),
        ("queries_per_patch", Size),
        ("residual_scale", ctypes.c_float),
        ("norm", Norm),
        ("output", Matrix),
        ("entropy_model", ctypes.POINTER(EntropySpec)),
    )


class Rule(ctypes.Structure):
    """See `blt_rule`."""

    _fields_ = (
        ("kind", Int32),
        ("threshold", ctypes.c_float),
        ("rise_threshold", ctypes.c_float),
        ("length", Size),
        ("max_length", Size),
    )


class Reading(ctypes.Structure):
    """See `blt_reading`."""

    _fields_ = (("rows", Pointer), ("counts", Pointer), ("ids", Pointer), ("num_rows", Size), ("num_ids", Size))


class Sampling(ctypes.Structure):
    """See `blt_sampling`."""

    _fields_ = (
        *((name, ctypes.c_double) for name in ("temperature", "top_p", "min_p")),
        ("top_k", Size),
        ("random_state", ctypes.c_uint64),
        *((name, Size) for name in ("room", "chosen", "num_ahead")),
        *((name, Int32) for name in ("keeps_utf8", "utf8", "stopped")),
    )


class Generation(ctypes.Structure):
    """See `blt_generation`."""

    _fields_ = (
        ("rows", Pointer),
        ("samplings", ctypes.POINTER(Sampling)),
        *((name, Pointer) for name in ("logits", "bytes", "counts", "forced")),
        *((name, Size) for name in ("num_rows", "max_bytes", "max_draft")),
        ("min_probability", ctypes.c_float),
    )


_CALLS: dict[str, tuple[object, ...]] = {
    "blt_model_new": (ctypes.POINTER(ModelSpec), ctypes.POINTER(Pointer)),
    "blt_decoder_new": (Pointer, ctypes.POINTER(Rule), Size, Int32, ctypes.POINTER(Pointer)),
    "blt_decoder_start": (Pointer, Size, Pointer),
    "blt_decoder_leave": (Pointer, Pointer, Size),
    "blt_decoder_read": (Pointer, ctypes.POINTER(Reading), Int32, Int32, Pointer, Pointer),
    "blt_decoder_advance_patcher": (Pointer, ctypes.POINTER(Reading), Pointer, Pointer),
    "blt_decoder_forward": (Pointer, Size, Pointer),
    "blt_decoder_draft": (Pointer, ctypes.POINTER(Reading), Pointer),
    "blt_decoder_discard_draft": (Pointer,),
    "blt_decoder_rewind": (Pointer, Pointer, Size),
    "blt_decoder_generate": (Pointer, ctypes.POINTER(Generation), ctypes.POINTER(Size)),
    "blt_decoder_memory": (Pointer, Pointer),
    "blt_decoder_seconds": (Pointer, Pointer),
    "blt_reading_rate": (Size, Int32, ctypes.POINTER(ctypes.c_double)),
    "blt_product_rate": (ctypes.POINTER(Matrix), Int32, ctypes.POINTER(ctypes.c_double)),
}


@functools.cache
def declared(library: ctypes.CDLL) -> ctypes.CDLL:
    """Declare the types of a library's functions."""
    for name, arguments in _CALLS.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, Int32
    for name in ("blt_model_free", "blt_decoder_free"):
        function = getattr(library, name)
        function.argtypes, function.restype = (Pointer,), None
    for name in ("blt_last_error", "blt_kernels"):
        function = getattr(library, name)
        function.argtypes, function.restype = (), ctypes.c_char_p
    library.blt_model_bytes.argtypes, library.blt_model_bytes.restype = (Pointer, Pointer), None
    library.blt_fingerprint.argtypes = (Pointer, Size, ctypes.c_uint64)
    library.blt_fingerprint.restype = ctypes.c_uint64
    return library


def library(*, portable: bool = False) -> ctypes.CDLL | None:
    """Return the compiled decoder, or None where there is none to be had.

    Args:
        portable: the one that computes the same bits on every processor, somewhat more slowly.
    """
    found = load("decoder", folder=CORE, openmp=False, portable=portable)
    return None if found is None else declared(found)


def call(library: ctypes.CDLL, name: str, *arguments: object) -> None:
    """Call a function.

    Raises:
        ConfigurationError: an argument that cannot be.
        MemoryError: not enough memory.
        ModelFolderError: entropies that are not finite.
    """
    status = getattr(library, name)(*arguments)
    if status == 0:
        return
    reason = library.blt_last_error().decode("utf-8", errors="replace")
    if status == 2:
        raise MemoryError(reason)
    if status == 4:
        raise ModelFolderError(reason)
    raise ConfigurationError(reason)
