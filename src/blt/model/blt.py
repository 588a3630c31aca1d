"""The Byte Latent Transformer (Pagnoni et al. 2024, arXiv 2412.09871)."""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from blt.codec import VOCABULARY_SIZE
from blt.model.configuration import BLTConfig
from blt.model.cross_attention import BytesReadPatch, PatchesReadBytes
from blt.model.hash_embedding import HashEmbedding, ngram_hashes
from blt.model.layout import Layout, lay_out
from blt.nn import Attend, CausalPattern, Linear, Transformer, TransformerConfig, WindowPattern, initialise
from blt.nn.transformer import Layer, RMSNorm
from blt.ops import RotaryTable, pack_rows, rotary_table, segment_max
from blt.patching.patches import Patches
from blt.shapes import Float, Int, Tensor

ReadPatch = Callable[[int, Tensor], Tensor]
"""(index of a cross-attention, byte states `B T D`) → byte states after reading their patch."""


class LocalEncoder(nn.Module):
    """Byte embeddings → byte states and patch states."""

    def __init__(self, config: BLTConfig) -> None:
        super().__init__()
        shape, k = config.local_encoder, config.queries_per_patch
        self.config = config
        self.layers = Transformer(shape)
        self.to_queries = Linear(shape.dim, k * shape.dim)
        self.cross_attention = PatchesReadBytes(shape, residual=config.cross_attention_residual)
        same = k * shape.dim == config.global_transformer.dim
        self.to_global = None if same else Linear(k * shape.dim, config.global_transformer.dim)

    def forward(
        self, embedded: Float[Tensor, "B T D"], layout: Layout, *, attend: Attend | None = None
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B P G"]]:
        """Run the local layers over the bytes, then pool each complete patch; `attend` replaces the window pattern."""
        window = attend or WindowPattern(layout.documents, window=self.config.local_encoder.window)
        byte_states = self.layers(embedded, self.angles(layout.positions), window)
        pooled = segment_max(byte_states, layout.pooled_into, num_slots=layout.num_slots)  # B P D
        vectors = self.cross_attention(self.queries(pooled), byte_states, layout)
        return byte_states, self.patch_states(vectors)

    def angles(self, positions: Int[Tensor, "B T"]) -> RotaryTable:
        """Return the RoPE table of byte positions."""
        return _angles(positions, self.config.local_encoder, theta=self.config.rope_theta)

    def queries(self, pooled: Float[Tensor, "B P D"]) -> Float[Tensor, "B P K D"]:
        """Project the pooled bytes of a patch to its k queries."""
        return self.to_queries(pooled).unflatten(-1, (self.config.queries_per_patch, -1))

    def patch_states(self, vectors: Float[Tensor, "B P K D"]) -> Float[Tensor, "B P G"]:
        """Join a patch's k vectors into the state that enters the global transformer."""
        joined = vectors.flatten(-2)
        return joined if self.to_global is None else self.to_global(joined)


class GlobalTransformer(nn.Module):
    """Patch states → latents, causal over the patches of a document."""

    def __init__(self, config: BLTConfig) -> None:
        super().__init__()
        shape = config.global_transformer
        self.config = config
        self.layers = Transformer(shape)

    def forward(
        self, patch_states: Float[Tensor, "B P G"], layout: Layout, *, attend: Attend | None = None
    ) -> Float[Tensor, "B P G"]:
        """Run the layers over the patches; `attend` replaces the causal pattern."""
        segments, positions = layout.patch_documents, layout.patch_positions
        if attend is not None:
            return self.layers(patch_states, self.angles(positions), attend)
        rows = pack_rows(patch_states, segments=segments, positions=positions, head_dim=self.head_dim)
        return rows.unpack(self.layers(rows.states, self.angles(rows.positions), CausalPattern(rows.segments)))

    @property
    def head_dim(self) -> int:
        """Width of a head."""
        return self.config.global_transformer.dim // self.config.global_transformer.num_heads

    def angles(self, positions: Int[Tensor, "B P"]) -> RotaryTable:
        """Return the RoPE table of patch positions."""
        theta = self.config.global_rope_theta or self.config.rope_theta
        return _angles(positions, self.config.global_transformer, theta=theta)


class LocalDecoder(nn.Module):
    """Byte states and latents → states that predict the next byte."""

    def __init__(self, config: BLTConfig) -> None:
        super().__init__()
        shape, k = config.local_decoder, config.queries_per_patch
        self.config = config
        self.from_global = Linear(config.global_transformer.dim, k * shape.dim)
        self.layers = Transformer(shape)
        num_cross = shape.num_layers if config.decoder_cross_attention == "every" else 1
        self.cross_attentions = nn.ModuleList(
            BytesReadPatch(shape, residual=config.cross_attention_residual) for _ in range(num_cross)
        )
        self.norm = RMSNorm(shape.dim, epsilon=shape.norm_epsilon)

    def forward(
        self,
        byte_states: Float[Tensor, "B T D"],
        latents: Float[Tensor, "B P G"],
        layout: Layout,
        *,
        attend: Attend | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Attend from each byte to its newest complete patch, then to its window; `attend` replaces the pattern."""
        window = attend or WindowPattern(layout.documents, window=self.config.local_decoder.window)
        vectors = self.patch_vectors(latents)

        def read_patch(index: int, states: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
            return self.cross_attentions[index](states, vectors, layout)

        return self.run(byte_states, layout.positions, [window] * len(self.layers.layers), read_patch)

    def run(
        self,
        byte_states: Float[Tensor, "B T D"],
        positions: Int[Tensor, "B T"],
        attends: Sequence[Attend],
        read_patch: ReadPatch,
    ) -> Float[Tensor, "B T D"]:
        """Run cross-attention and layers in turn, then the norm."""
        table = _angles(positions, self.config.local_decoder, theta=self.config.rope_theta)
        for index, layer in enumerate(self.layers.layers):
            if index < len(self.cross_attentions):
                byte_states = read_patch(index, byte_states)
            byte_states = layer(byte_states, table, attends[index])
        return self.norm(byte_states)

    def patch_vectors(self, latents: Float[Tensor, "B P G"]) -> Float[Tensor, "B P K D"]:
        """Project each latent to the k vectors that bytes attend to."""
        return self.from_global(latents).unflatten(-1, (self.config.queries_per_patch, -1))


class BLT(nn.Module):
    """Byte ids and patches → logits of the next byte, at every byte."""

    def __init__(self, config: BLTConfig) -> None:
        super().__init__()
        self.config = config
        self.hash_embedding = HashEmbedding(config.hash_embedding, dim=config.local_encoder.dim)
        self.local_encoder = LocalEncoder(config)
        self.global_transformer = GlobalTransformer(config)
        self.local_decoder = LocalDecoder(config)
        untied = Linear(config.local_decoder.dim, VOCABULARY_SIZE)
        self.output = None if config.tie_embeddings else untied
        initialise(self)
        self.hash_embedding.initialise()

    def forward(self, byte_ids: Int[Tensor, "B T"], patches: Patches) -> Float[Tensor, "B T V"]:
        """Predict, after every byte, the byte that follows it (logits, float32)."""
        layout = lay_out(byte_ids, patches)
        hashes = ngram_hashes(byte_ids, layout.positions, self.config.hash_embedding)
        embedded = self.hash_embedding(byte_ids, hashes)  # B T D
        byte_states, patch_states = self.local_encoder(embedded, layout)
        latents = self.global_transformer(patch_states, layout)  # B P G
        return self.logits(self.local_decoder(byte_states, latents, layout))

    def set_dropout(self, *, layers: float = 0.0, ngrams: float = 0.0) -> None:
        """Set the dropout of training: positions that skip a layer's updates, and bytes without their n-grams."""
        self.hash_embedding.dropout = ngrams
        for part in self.modules():
            if isinstance(part, Layer):
                part.dropout = layers

    def logits(self, states: Float[Tensor, "B T D"]) -> Float[Tensor, "B T V"]:
        """Return the logits of the decoder's states, in float32."""
        if self.output is not None:
            return self.output(states).float()
        return torch.nn.functional.linear(states, self.hash_embedding.bytes.weight).float()


def _angles(positions: Int[Tensor, "B T"], shape: TransformerConfig, *, theta: float) -> RotaryTable:
    return rotary_table(positions, head_dim=shape.dim // shape.num_heads, theta=theta)
