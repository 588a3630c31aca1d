"""The Byte Latent Transformer (Pagnoni et al. 2024, arXiv 2412.09871)."""

import torch
from torch import nn

from blt.codec import VOCABULARY_SIZE
from blt.model.configuration import BLTConfig
from blt.model.cross_attention import BytesReadPatch, PatchesReadBytes, Project
from blt.model.hash_embedding import HashEmbedding, ngram_hashes
from blt.model.layout import Layout, StepLayout, lay_out
from blt.model.states import DecoderState, EncoderState, PartStates
from blt.nn import Linear, RowInputs, StackState, Transformer, dtype_of_states, initialise
from blt.nn.transformer import Layer, RMSNorm
from blt.ops import pack_rows, segment_max
from blt.patching.patches import Patches
from blt.shapes import Float, Int, Tensor


class LocalEncoder(nn.Module):
    """Byte embeddings → byte states and patch states."""

    def __init__(self, config: BLTConfig) -> None:
        super().__init__()
        shape, k = config.local_encoder, config.queries_per_patch
        self.config = config
        self.layers = Transformer(shape, theta=config.rope_theta)
        self.to_queries = Linear(shape.dim, k * shape.dim)
        self.cross_attention = PatchesReadBytes(shape, residual=config.cross_attention_residual)
        same = k * shape.dim == config.global_transformer.dim
        self.to_global = None if same else Linear(k * shape.dim, config.global_transformer.dim)

    def forward(
        self, embedded: Float[Tensor, "B T D"], layout: Layout | StepLayout, state: EncoderState | None = None
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "R P G"]]:
        """Run the local layers over the bytes, then pool each complete patch.

        Args:
            embedded: one vector per byte; `N 1 D` in a step.
            layout: of whole rows, or of a step.
            state: what the rows have read before, which takes in what they read now.

        Returns:
            A state per byte, and one per complete patch, `B P G`; in a step, `Q 1 G`, of those that it completes.
        """
        byte_states = self.layers(embedded, layout.bytes, None if state is None else state.stack)
        if state is not None:
            pooled_bytes, slots, num_slots = state.update(byte_states, layout)
            if not len(pooled_bytes):  # most steps complete no patch
                return byte_states, byte_states.new_zeros(0, 1, self.config.global_transformer.dim)
        else:
            assert isinstance(layout, Layout), "a step needs a state"
            pooled_bytes, slots, num_slots = byte_states, layout.pooled_into, layout.num_slots
        pooled = segment_max(pooled_bytes, slots, num_slots=num_slots)  # B P D
        queries = self.to_queries(pooled).unflatten(-1, (self.config.queries_per_patch, -1))  # B P K D
        joined = self.cross_attention(queries, pooled_bytes, slots).flatten(-2)
        return byte_states, joined if self.to_global is None else self.to_global(joined)

    def new_state(self, *, batch: int, like: Tensor, max_rollback: int) -> EncoderState:
        """Return a state of empty rows; arguments as in `Transformer.new_state`."""
        stack = self.layers.new_state(batch=batch, like=like, max_rollback=max_rollback)
        return EncoderState(stack, batch=batch, dim=self.config.local_encoder.dim, like=like)


class GlobalTransformer(nn.Module):
    """Patch states → latents, causal over the patches of a document."""

    def __init__(self, config: BLTConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = Transformer(config.global_transformer, theta=config.global_rope_theta or config.rope_theta)

    def forward(
        self, patch_states: Float[Tensor, "B P G"], layout: Layout | StepLayout, state: StackState | None = None
    ) -> Float[Tensor, "B P G"]:
        """Run the layers over the patches; arguments as in `LocalEncoder`."""
        if state is not None:
            return self.layers(patch_states, layout.patches, state) if len(patch_states) else patch_states
        assert isinstance(layout, Layout), "a step needs a state"
        segments, positions = layout.patch_documents, layout.patch_positions
        head_dim = self.config.global_transformer.head_dim
        rows = pack_rows(patch_states, segments=segments, positions=positions, head_dim=head_dim)
        return rows.unpack(self.layers(rows.states, RowInputs(rows.segments, rows.positions)))

    def new_state(self, *, batch: int, like: Tensor, max_rollback: int) -> StackState:
        """Return a state of empty rows; arguments as in `Transformer.new_state`."""
        return self.layers.new_state(batch=batch, like=like, max_rollback=max_rollback)


class LocalDecoder(nn.Module):
    """Byte states and latents → states that predict the next byte."""

    def __init__(self, config: BLTConfig) -> None:
        super().__init__()
        shape, k = config.local_decoder, config.queries_per_patch
        self.config = config
        self.from_global = Linear(config.global_transformer.dim, k * shape.dim)
        self.layers = Transformer(shape, theta=config.rope_theta)
        num_cross = shape.num_layers if config.decoder_cross_attention == "every" else 1
        self.cross_attentions = nn.ModuleList(
            BytesReadPatch(shape, residual=config.cross_attention_residual) for _ in range(num_cross)
        )
        self.norm = RMSNorm(shape.dim, epsilon=shape.norm_epsilon)

    def forward(
        self,
        byte_states: Float[Tensor, "B T D"],
        latents: Float[Tensor, "R P G"],
        layout: Layout | StepLayout,
        state: DecoderState | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Attend from each byte to its newest complete patch, then to its window, layer by layer, then the norm.

        Args:
            byte_states: the encoder's.
            latents: of the complete patches, `B P G`; in a step, `Q 1 G`, of those that it completes.
            layout: of whole rows, or of a step.
            state: what the rows have read before, which takes in what they read now.
        """
        completes_none = state is not None and not len(latents)  # as most steps
        vectors = latents if completes_none else self.patch_vectors(latents)
        run = self.layers.prepare(layout.bytes, None if state is None else state.stack)
        for index in range(len(self.layers.layers)):
            if index < len(self.cross_attentions):

                def select(project: Project, index: int = index) -> tuple[Tensor, Tensor, Tensor | None]:
                    if state is None:
                        assert isinstance(layout, Layout), "a step needs a state"
                        return *project(vectors), layout.read_from
                    return state.update(index, None if completes_none else project(vectors), layout)

                byte_states = self.cross_attentions[index](byte_states, select)
            byte_states = run(index, byte_states)
        return self.norm(byte_states)

    def patch_vectors(self, latents: Float[Tensor, "B P G"]) -> Float[Tensor, "B P K D"]:
        """Project each latent to the k vectors that bytes attend to."""
        return self.from_global(latents).unflatten(-1, (self.config.queries_per_patch, -1))

    def new_state(self, *, batch: int, like: Tensor, max_rollback: int) -> DecoderState:
        """Return a state of empty rows; arguments as in `Transformer.new_state`."""
        shape = self.config.local_decoder
        return DecoderState(
            self.layers.new_state(batch=batch, like=like, max_rollback=max_rollback),
            batch=batch,
            num_cross=len(self.cross_attentions),
            shape=(self.config.queries_per_patch, shape.num_heads, shape.dim // shape.num_heads),
            like=like,
            max_rollback=max_rollback,
        )


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
        return self.logits(self.run(byte_ids, hashes, layout))

    def run(
        self,
        byte_ids: Int[Tensor, "B T"],
        hashes: Int[Tensor, "B T N"],
        layout: Layout | StepLayout,
        states: PartStates | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Run all parts: in training, in prefill and in decoding alike.

        Args:
            byte_ids: the bytes; `N 1` in a step.
            hashes: of each byte's n-grams.
            layout: of whole rows, or of a step.
            states: what the rows have read before, which take in what they read now; None: nothing is kept.

        Returns:
            The decoder's states, for `logits`.
        """
        encoder, middle, decoder = (None, None, None) if states is None else states
        embedded = self.hash_embedding(byte_ids, hashes)  # B T D
        byte_states, patch_states = self.local_encoder(embedded, layout, encoder)
        latents = self.global_transformer(patch_states, layout, middle)  # B P G
        return self.local_decoder(byte_states, latents, layout, decoder)

    def new_states(self, *, batch: int, max_rollback: int) -> PartStates:
        """Return the parts' states of empty rows.

        Args:
            batch: rows.
            max_rollback: how many bytes can be read at once, and rolled back.
        """
        like = self.hash_embedding.bytes.weight.detach().new_empty(0, dtype=dtype_of_states(self))
        return PartStates(
            self.local_encoder.new_state(batch=batch, like=like, max_rollback=max_rollback),
            self.global_transformer.new_state(batch=batch, like=like, max_rollback=max_rollback),
            self.local_decoder.new_state(batch=batch, like=like, max_rollback=max_rollback),
        )

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
