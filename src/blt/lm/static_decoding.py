"""Decoding by steps of fixed shapes, one byte of every row each, which `torch.compile` and CUDA graphs can take."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from blt.codec import BOE_ID, BOS_ID, VOCABULARY_SIZE
from blt.configuration import check_range
from blt.entropy import entropy_of
from blt.errors import ConfigurationError
from blt.lm.language_model import LanguageModel
from blt.lm.torch_decoding import TorchDecoding
from blt.model.layout import StepLayout
from blt.nn import HostInts, KeyValueCache, StepInputs, Transformer
from blt.ops import compile_mode, hash_ngrams, to_device, without_autocast
from blt.patching import PatcherState, read_byte
from blt.shapes import Bool, Float, Int, Tensor


@dataclass(frozen=True, kw_only=True)
class StaticConfig:
    """How much room a static step has, and how it is compiled. What needs more room gets it, and is compiled anew."""

    num_rows: int = 1
    """Rows that are run in every step, whether they read a byte or not."""
    max_patches: int = 1024
    """Patches of a row that the global transformer's cache holds; all of it is looked at in every step."""
    max_patch_bytes: int = 64
    """Bytes of the longest patch."""
    skips_global: bool = False
    """Run the global transformer only where a row completes a patch, for a second wait per byte: pays where its weights
    take longer to read than a wait."""
    backend: str | None = "inductor"
    """Of `torch.compile`; on a GPU inductor also records CUDA graphs. None: not compiled."""

    def __post_init__(self) -> None:
        for name in ("num_rows", "max_patches", "max_patch_bytes"):
            check_range(name, getattr(self, name), 1)


class _Numbers(NamedTuple):
    """What each row's place is made of, on the device; row 0 is nobody's."""

    newest_byte: Int[Tensor, " A"]
    """See `RowPosition`, for these three."""
    newest_patch: Int[Tensor, " A"]
    patch_start: Int[Tensor, " A"]
    recent_ids: Int[Tensor, "A N"]
    """The newest ids: a ring by position."""
    patcher: PatcherState


class StaticDecoding(TorchDecoding):
    """Rows of one model, which read one byte at a time without the host looking at anything but their logits.

    A step of one byte per row waits for the device once, for the logits of all rows. What reads several bytes at once,
    a prompt or drafts, does so as `TorchDecoding` does.

    Args:
        lm: the model.
        max_rollback: how many bytes can be taken back.
        config: room, and compilation.
    """

    # In `TorchDecoding` the host computes where everything lies, for which it has to know which bytes complete a patch.
    # Here these numbers stay on the device, and nothing that depends on data may change a shape: every row takes part
    # in every step, the global transformer runs for every row, and a row that reads no byte, or completes no patch,
    # writes what it has computed to row 0, which nobody reads. The host follows from the ends that come with the
    # logits, so that both ways can go on from one another.

    def __init__(self, lm: LanguageModel, *, max_rollback: int = 16, config: StaticConfig | None = None) -> None:
        super().__init__(lm, max_rollback=max_rollback)
        self.config = config = config or StaticConfig()
        self._numbers: _Numbers | None = None
        self._is_there = False  # whether these numbers are the newest
        super()._take_rows(1)  # row 0
        self.remove(super()._take_rows(config.num_rows))
        middle, encoder = self._blt.parts.global_transformer, self._blt.parts.local_encoder
        assert isinstance(middle, KeyValueCache), "a static step needs a KV cache"
        self._middle = middle
        middle.make_room(config.max_patches - 1)
        encoder.make_room(config.max_patch_bytes, newest=self._blt.newest_byte)
        self._keep_frequencies()
        self._both = self._compiled(self._advance_and_forward)
        self._advance_alone = self._compiled(self._advance)
        self._forward_with_patches = self._compiled(self._forward_completing)
        self._forward_without = self._compiled(self._forward_completing_none)

    @property
    def num_rows(self) -> int:
        """How many rows there are now."""
        return super().num_rows - 1

    @without_autocast
    def read(self, byte_ids: Int[Tensor, "R M"], rows: HostInts) -> Float[Tensor, "R M V"]:
        """Read bytes of some rows; see `TorchDecoding.read`. The logits of a static step are on the host."""
        if byte_ids.shape[1] != 1:
            return super().read(byte_ids, rows)
        ids = byte_ids[:, 0].cpu().numpy()
        self._make_room(ids, rows)
        self._go_there()
        given = np.full(len(self._blt.newest_byte) - 1, -1)
        given[rows - 1] = ids
        found = self._step(to_device(torch.from_numpy(given), self.lm.device)).cpu()[torch.from_numpy(rows - 1)]
        self.ends = found[:, VOCABULARY_SIZE:] > 0
        self._blt.note(ids, self.ends[:, 0].numpy(), rows)
        if self._entropy is not None:
            self._entropy.newest[rows] = self._blt.newest_byte[rows]
        return found[:, None, :VOCABULARY_SIZE]

    def _step(self, ids: Int[Tensor, " S"]) -> Float[Tensor, "S W"]:
        if not self.config.skips_global:
            return self._both(ids)
        ends = self._advance_alone(ids)
        forward = self._forward_with_patches if bool(ends.any()) else self._forward_without
        return forward(ids, ends)

    def prefill(self, rows: HostInts, prompts: Any) -> Float[Tensor, "R V"]:
        """Prefill empty rows with their prompts."""
        self._come_back()
        return super().prefill(rows, prompts)

    def start(self, num_rows: int) -> HostInts:
        """Add empty rows."""
        self._come_back()
        return super().start(num_rows)

    def advance_patcher(self, byte_ids: Int[Tensor, "R M"], rows: HostInts) -> Float[Tensor, "R M V"] | None:
        """Run the entropy model and the patcher alone over the next bytes; see `TorchDecoding.advance_patcher`."""
        self._come_back()
        return super().advance_patcher(byte_ids, rows)

    def draft(self, byte_ids: Int[Tensor, "R M"], rows: HostInts) -> Float[Tensor, "R M V"]:
        """Predict what follows each of some bytes; see `TorchDecoding.draft`."""
        self._come_back()
        return super().draft(byte_ids, rows)

    def _advance_and_forward(self, ids: Int[Tensor, " S"]) -> Float[Tensor, "S W"]:
        return self._forward(ids, self._advance(ids), completes_any=True)

    def _forward_completing(self, ids: Int[Tensor, " S"], ends: Bool[Tensor, " S"]) -> Float[Tensor, "S W"]:
        return self._forward(ids, ends, completes_any=True)

    def _forward_completing_none(self, ids: Int[Tensor, " S"], ends: Bool[Tensor, " S"]) -> Float[Tensor, "S W"]:
        return self._forward(ids, ends, completes_any=False)

    def _advance(self, ids: Int[Tensor, " S"]) -> Bool[Tensor, " S"]:
        """Run the entropy model and the patcher over a byte of each row, −1 for none; return where a patch ends."""
        is_read, ids, rows, positions = self._places(ids)
        entropies = None
        if self._entropy is not None:
            inputs = StepInputs(rows, positions[:, None], positions, longest=0)
            entropies = entropy_of(self._entropy.model(ids[:, None], inputs, self._entropy.stack)[:, 0])
        patcher = self._there_now.patcher
        before = PatcherState(*(part[1:] for part in patcher))
        ends, after = read_byte(before, ids, entropies, rule=self.lm.patch_rule)
        for part, old, new in zip(patcher, before, after, strict=True):
            part[1:] = torch.where(is_read, new, old)
        return ends & is_read

    def _forward(self, ids: Int[Tensor, " S"], ends: Bool[Tensor, " S"], *, completes_any: bool) -> Tensor:
        """Run the BLT over these bytes; return the logits of what follows each, and 1 where a patch ends, else 0."""
        is_read, ids, rows, positions = self._places(ids)
        starts_document, parts, there = ids == BOS_ID, self._blt.parts, self._there_now
        patches = torch.where(starts_document, -1, there.newest_patch[1:]) + ends
        starts = torch.where(starts_document, 0, there.patch_start[1:])
        patch_rows, numbers = torch.where(ends, rows, 0), torch.where(ends, patches, 0)
        of_patches = slice(None) if completes_any else slice(0)
        layout = StepLayout(
            bytes=StepInputs(rows, positions[:, None], positions, longest=0),
            patches=StepInputs(
                patch_rows[of_patches],
                numbers[of_patches, None],
                numbers[of_patches],
                longest=self._middle.num_slots - 1,
            ),
            first_bytes=torch.where(ends, starts, positions)[of_patches],
            last_bytes=positions[of_patches],
            written=parts.local_decoder.slots_there(patch_rows, numbers)[of_patches],
            read_from=parts.local_decoder.slots_there(rows, patches),
        )
        states = self.lm.blt.run(ids[:, None], self._hashes(ids, rows, positions), layout, parts)
        for part, new in (
            (there.newest_byte, positions),
            (there.newest_patch, patches),
            (there.patch_start, torch.where(ends, positions + 1, starts)),
        ):
            part[1:] = torch.where(is_read, new, part[1:])
        return torch.cat([self.lm.blt.logits(states)[:, 0], ends[:, None].float()], dim=1)

    def _places(self, ids: Int[Tensor, " S"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return which rows read a byte, the bytes, the rows where they are stored, and their positions."""
        is_read = ids >= 0
        ids = ids.clamp_min(0)
        rows = torch.where(is_read, torch.arange(1, len(ids) + 1, device=ids.device), 0)
        return is_read, ids, rows, torch.where(ids == BOS_ID, 0, self._there_now.newest_byte[1:] + 1)

    def _hashes(self, ids: Tensor, rows: Tensor, positions: Tensor) -> Int[Tensor, "S 1 N"]:
        """Remember the bytes, and return the hashes of their n-grams."""
        config, recent = self.lm.blt.config.hash_embedding, self._there_now.recent_ids
        num_slots = recent.shape[1]
        recent[rows, positions % num_slots] = ids
        back = positions[:, None] - torch.arange(max(config.ngram_sizes, default=1), device=ids.device)  # S n
        preceding = torch.where(back >= 0, recent[rows[:, None], back % num_slots], BOE_ID)
        preceding[:, 0] = ids  # rows that read none share row 0
        sizes, num_functions = config.ngram_sizes, config.num_functions
        columns = list(preceding[:, None].unbind(2))  # of S 1
        return hash_ngrams(columns, sizes=sizes, num_functions=num_functions, num_rows=config.num_rows)

    def _go_there(self) -> None:
        """Copy the rows' numbers to the device, where a static step changes them in place."""
        if self._is_there:
            return
        host = (self._blt.newest_byte, self._blt.newest_patch, self._blt.patch_start)
        together = np.column_stack([*host, self._blt.recent_ids])
        there = to_device(torch.from_numpy(together), self.lm.device)  # A 3+N
        new = (*there[:, :3].unbind(1), there[:, 3:], *self._patcher.of(None))
        if self._numbers is None or len(self._numbers.newest_byte) != len(together):
            buffers = [part.contiguous().clone() for part in new]
            newest_byte, newest_patch, patch_start, recent_ids, *patcher = buffers
            self._numbers = _Numbers(newest_byte, newest_patch, patch_start, recent_ids, PatcherState(*patcher))
            self._keep_addresses()
        else:
            for part, values in zip((*self._numbers[:4], *self._numbers.patcher), new, strict=True):
                part.copy_(values)
        self._is_there = True

    def _come_back(self) -> None:
        """Return to the host's numbers; those of the patcher are copied, the others are known."""
        if self._is_there:
            self._patcher.put(PatcherState(*(part.clone() for part in self._there_now.patcher)), None)
        self._is_there = False

    @property
    def _there_now(self) -> _Numbers:
        assert self._numbers is not None, "only asked for once they are there"
        return self._numbers

    def _make_room(self, ids: HostInts, rows: HostInts) -> None:
        """Grow where a byte of each of these rows might not fit."""
        blt, starts = self._blt, ids == BOS_ID
        longest = np.where(starts, 1, blt.newest_byte[rows] + 2 - blt.patch_start[rows]).max()
        newest = np.where(starts, 0, blt.newest_patch[rows] + 1).max()
        if longest > blt.parts.local_encoder.open_bytes.shape[1] or newest >= self._middle.num_slots:
            blt.parts.local_encoder.make_room(int(longest), newest=blt.newest_byte)
            self._middle.make_room(int(newest))
            self._keep_addresses()

    def _take_rows(self, count: int) -> HostInts:
        """Take rows; where more are needed than there are, twice as many are made."""
        self._come_back()
        missing = count - len(self._free)
        if missing > 0:
            self.remove(super()._take_rows(len(self._free) + max(missing, len(self._blt.newest_byte) - 1)))
        return super()._take_rows(count)

    def _keep_frequencies(self) -> None:
        """Compute what the stacks keep of RoPE, which they would do within the first step, and no later one."""
        nothing = StepInputs.of(*(np.zeros(1, dtype=np.int64) for _ in range(3)), device=self.lm.device)
        for model in (self.lm.blt, *(() if self._entropy is None else (self._entropy.model,))):
            for part in model.modules():
                if isinstance(part, Transformer):
                    part.rotary_table(nothing)

    def _keep_addresses(self) -> None:
        """Mark tensors that stay where they are, so that CUDA graphs change them in place."""
        parts = self._blt.parts
        stacks = [parts.local_encoder.stack, self._middle, parts.local_decoder.stack]
        stacks += [] if self._entropy is None else [self._entropy.stack]
        held = [parts.local_encoder.open_bytes, parts.local_decoder.keys, parts.local_decoder.values]
        for stack in stacks:
            assert isinstance(stack, KeyValueCache), "a static step needs KV caches"
            held += [stack.keys, stack.values]
        held += [*self._there_now[:4], *self._there_now.patcher]
        for part in held if self.config.backend is not None else ():
            torch._dynamo.mark_static_address(part)  # noqa: SLF001 (the documented way to say so)

    def _compiled(self, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        backend = self.config.backend
        if backend is None:
            return function
        from torch._dynamo.exc import BackendCompilerFailed  # the compiler takes a second to import

        mode = compile_mode(self.lm.device, backend=backend)
        compiled: Callable[..., Tensor] = torch.compile(
            function, fullgraph=True, dynamic=False, backend=backend, mode=mode
        )

        @functools.wraps(function)
        def run(*inputs: Tensor) -> Tensor:
            try:
                return compiled(*inputs)
            except BackendCompilerFailed as error:  # no C++ compiler, no Triton
                reason = (str(error.inner_exception).strip() or type(error.inner_exception).__name__).splitlines()[0]
                raise ConfigurationError(f"static: torch.compile failed ({reason}); leave static out") from error

        return run
