"""A model's weights, packed once for the native decoder."""

import ctypes
import math
import weakref
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import nn

from blt.decoder import library as c
from blt.entropy import EntropyModel
from blt.model import BLT
from blt.model.cross_attention import CrossAttention
from blt.model.hash_embedding import longest_ngram
from blt.nn import LocalConfig, QuantizedLinear, Transformer, TransformerConfig
from blt.nn.transformer import Layer, RMSNorm
from blt.ops import PRIMES, rotary_frequencies
from blt.shapes import Tensor

_STORED = {torch.float32: c.FLOAT32, torch.bfloat16: c.BFLOAT16, torch.int8: c.INT8, torch.uint8: c.INT4}
_LONGEST_NGRAM = 64


class PackedModel:
    """A BLT, and its entropy model where one is needed, laid out for the products of the native decoder.

    Tables that rows are looked up in stay where the model has them. The matrices are copies; so a model whose weights
    change must be packed anew (`packed_model` sees to it).
    """

    def __init__(
        self, library: ctypes.CDLL, blt: BLT, entropy_model: EntropyModel | None, *, portable: bool = False
    ) -> None:
        self.library = library
        self.vocabulary = blt.hash_embedding.bytes.num_embeddings
        spec = _Spec(portable=portable)
        model = ctypes.c_void_p()
        c.call(library, "blt_model_new", ctypes.byref(spec.model(blt, entropy_model)), ctypes.byref(model))
        self.handle = model
        self._tables = spec.tables  # that the model points to
        self._close = weakref.finalize(self, library.blt_model_free, model)

    @property
    def num_bytes(self) -> tuple[int, int]:
        """Memory of the packed matrices: of the BLT, and of the entropy model."""
        found = np.zeros(2, dtype=np.int64)
        self.library.blt_model_bytes(self.handle, found.ctypes.data)
        return int(found[0]), int(found[1])


class _Spec:
    """Describes modules in the structures of `api.h`; keeps alive what those point to."""

    def __init__(self, *, portable: bool = False) -> None:
        self.portable = portable
        self.tables: list[Tensor] = []
        self._kept: list[object] = []

    def model(self, blt: BLT, entropy_model: EntropyModel | None) -> c.ModelSpec:
        config, encoder, decoder = blt.config, blt.local_encoder, blt.local_decoder
        hashes, theta = config.hash_embedding, config.rope_theta
        sizes = np.array(sorted(hashes.ngram_sizes, key=hashes.ngram_sizes.index), dtype=np.int64)
        primes = np.array(PRIMES[: hashes.num_functions], dtype=np.uint64)
        ngrams = blt.hash_embedding.ngrams
        reading = [part for part in decoder.cross_attentions if isinstance(part, CrossAttention)]
        return c.ModelSpec(
            bytes=self._table(blt.hash_embedding.bytes.weight),
            ngrams=c.Matrix() if ngrams is None else self._table(ngrams.weight),
            ngram_sizes=self._array(sizes),
            primes=self._array(primes),
            num_ngram_sizes=len(sizes),
            num_functions=len(primes),
            num_ngram_rows=hashes.num_rows,
            encoder=self._stack(encoder.layers, config.local_encoder, theta=theta),
            global_transformer=self._stack(
                blt.global_transformer.layers, config.global_transformer, theta=config.global_rope_theta or theta
            ),
            decoder=self._stack(decoder.layers, config.local_decoder, theta=theta),
            to_queries=self.matrix(encoder.to_queries),
            to_global=c.Matrix() if encoder.to_global is None else self.matrix(encoder.to_global),
            from_global=self.matrix(decoder.from_global),
            pooling=self._cross_attention(encoder.cross_attention),
            reading=self._structures(c.CrossAttention, [self._cross_attention(part) for part in reading]),
            num_reading=len(reading),
            queries_per_patch=config.queries_per_patch,
            residual_scale=encoder.cross_attention.residual_scale,
            norm=self._norm(decoder.norm),
            output=self.matrix(blt.hash_embedding.bytes.weight if blt.output is None else blt.output),
            entropy_model=None if entropy_model is None else ctypes.pointer(self._entropy_model(entropy_model)),
        )

    def _entropy_model(self, model: EntropyModel) -> c.EntropySpec:
        return c.EntropySpec(
            bytes=self._table(model.bytes.weight),
            stack=self._stack(model.layers, model.config, theta=model.config.rope_theta),
            norm=self._norm(model.norm),
            output=self.matrix(model.bytes.weight if model.output is None else model.output),
        )

    def _stack(self, stack: Transformer, shape: TransformerConfig, *, theta: float) -> c.Stack:
        if self.portable:
            frequencies = _portable_frequencies(shape.head_dim, theta)
        else:
            frequencies = rotary_frequencies(head_dim=shape.head_dim, theta=theta, device=torch.device("cpu")).numpy()
        layers = [self._layer(layer) for layer in stack.layers if isinstance(layer, Layer)]
        return c.Stack(
            layers=self._structures(c.Layer, layers),
            frequencies=self._array(np.ascontiguousarray(frequencies)),
            num_layers=len(layers),
            num_heads=shape.num_heads,
            window=shape.window if isinstance(shape, LocalConfig) else 0,
        )

    def _layer(self, layer: Layer) -> c.Layer:
        attention, feed_forward = layer.attention, layer.feed_forward
        return c.Layer(
            self._norm(layer.attention_norm),
            self._norm(layer.feed_forward_norm),
            *(self.matrix(part) for part in (attention.query, attention.key, attention.value, attention.output)),
            *(self.matrix(part) for part in (feed_forward.gate, feed_forward.up, feed_forward.down)),
        )

    def _cross_attention(self, cross: CrossAttention) -> c.CrossAttention:
        return c.CrossAttention(
            self._norm(cross.query_norm),
            self._norm(cross.source_norm),
            *(self.matrix(part) for part in (cross.query, cross.key, cross.value, cross.output)),
        )

    def _norm(self, norm: RMSNorm) -> c.Norm:
        weight = self._tensor(norm.weight.detach().float())
        return c.Norm(weight.data_ptr(), weight.numel(), float(norm.eps or 0.0))

    def _table(self, weight: Tensor) -> c.Matrix:
        table = weight.detach().contiguous()
        self.tables.append(table)
        return self.matrix(table)

    def matrix(self, source: nn.Module | Tensor) -> c.Matrix:
        """Describe a linear layer, or its weight alone."""
        given = source if isinstance(source, Tensor) else source.weight
        assert isinstance(given, Tensor)
        weight, found = self._tensor(given.detach()), c.Matrix()
        found.data, found.stored = weight.data_ptr(), _STORED[weight.dtype]
        found.outputs, found.inputs = weight.shape
        if isinstance(source, QuantizedLinear):
            found.inputs = source.in_features
            if source.scale is not None:
                scale = self._tensor(source.scale)
                setattr(found, "block_scales" if found.stored == c.INT4 else "scales", scale.data_ptr())
        return found

    def _tensor(self, tensor: Tensor) -> Tensor:
        tensor = tensor.contiguous()
        self._kept.append(tensor)
        return tensor

    def _array(self, array: np.ndarray) -> int:
        self._kept.append(array)
        return array.ctypes.data

    def _structures(self, kind: type[ctypes.Structure], values: Sequence[ctypes.Structure]) -> ctypes.Array:  # type: ignore[type-arg]
        array = (kind * len(values))(*values)
        self._kept.append(array)
        return array


def _portable_frequencies(head_dim: int, theta: float) -> np.ndarray:
    """Return `rotary_frequencies` by float64 powers, rounded once: vectorised float32 powers differ by processor."""
    powers = [math.pow(theta, float(np.float32(at) / np.float32(head_dim))) for at in range(0, head_dim, 2)]
    return np.float32(1.0) / np.array(powers, dtype=np.float32)


_packed: "weakref.WeakKeyDictionary[BLT, dict[bool, tuple[object, PackedModel]]]" = weakref.WeakKeyDictionary()


def packed_model(blt: BLT, entropy_model: EntropyModel | None, *, portable: bool = False) -> PackedModel | None:
    """Return a model's packed weights, or None where the native decoder does not serve it.

    They are packed once, and anew whenever a weight has changed: what is compared is the weights themselves, since an
    optimiser or a user may change them in ways that leave no other trace.

    Args:
        blt: the model.
        entropy_model: the entropy model, where the patch rule needs one.
        portable: for the decoder that computes the same bits on every processor.
    """
    library = c.library(portable=portable)
    if library is None or not serves(blt, entropy_model):
        return None
    key = _key(library, [*blt.state_dict().values(), *(entropy_model.state_dict().values() if entropy_model else ())])
    kept = _packed.setdefault(blt, {})
    if portable in kept and kept[portable][0] == key:
        return kept[portable][1]
    packed = PackedModel(library, blt, entropy_model, portable=portable)
    kept[portable] = (key, packed)
    return packed


def serves(blt: BLT, entropy_model: EntropyModel | None) -> bool:
    """Whether the native decoder serves a model: there is one, and weights are on a CPU and of types that it reads."""
    if c.library() is None:
        return False
    modules = [*blt.modules(), *(entropy_model.modules() if entropy_model else ())]
    weights = [part.weight for part in modules if isinstance(part, (nn.Linear, QuantizedLinear, nn.Embedding))]
    return longest_ngram(blt.config.hash_embedding) <= _LONGEST_NGRAM and all(
        weight.device.type == "cpu" and weight.dtype in _STORED for weight in weights
    )


def reading_rate(num_bytes: int, *, num_threads: int) -> float:
    """Measure the bytes per second of reading a buffer of `num_bytes` again and again; needs the native decoder."""
    return _measured("blt_reading_rate", num_bytes, num_threads)


def product_rate(linear: nn.Module, *, num_threads: int) -> float:
    """Measure the FLOPs per second of products by a small matrix, of the type that it is stored in."""
    spec = _Spec()
    return _measured("blt_product_rate", ctypes.byref(spec.matrix(linear)), num_threads)


def _measured(name: str, *arguments: object) -> float:
    library, rate = c.library(), ctypes.c_double()
    assert library is not None
    c.call(library, name, *arguments, ctypes.byref(rate))
    return rate.value


def _key(library: ctypes.CDLL, tensors: Iterable[Tensor]) -> object:
    found, places = 0, []
    for tensor in tensors:
        places.append((tensor.data_ptr(), tuple(tensor.shape), tensor.dtype))
        if not tensor.is_contiguous():
            tensor = tensor.contiguous()
        found = library.blt_fingerprint(tensor.data_ptr(), tensor.nbytes, found)
    return found, tuple(places)
