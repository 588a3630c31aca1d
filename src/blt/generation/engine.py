"""Continuing many prompts at once; they join and leave at any byte."""

from collections import deque
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from blt.codec import BYTE_OFFSET, EOS_ID, encode
from blt.configuration import check
from blt.decoder import GenerationRow
from blt.generation.drafting import Drafter
from blt.generation.request import Request
from blt.generation.sampling import broken_logits
from blt.lm import DecodingSession, LanguageModel, StaticConfig
from blt.lm.finite import PARAGRAPH
from blt.shapes import Int, Tensor

BYTES_PER_STEP = 16
"""About how many bytes a step of the native decoder writes, of all requests together.

Enough for the host's time per step to be small beside it, and few enough for requests to join and leave at once."""

WARM_UP_BYTES = 8
"""Static steps after which each of their graphs has been compiled, warmed up and recorded: a patch ends among them."""


def bytes_per_step(num_rows: int) -> int:
    """Return how many bytes of each of `num_rows` rows the native decoder writes per step, at most."""
    return max(1, BYTES_PER_STEP // num_rows)


class Engine:
    """Continues requests, each as it would be continued alone.

    A step writes the byte that the newest logits of a request lead to, and those that were drafted right after it. A
    draft is right when it is what would have been chosen; so requests are continued in the same way whether bytes are
    drafted or not, and whatever stands beside them. Where the native decoder runs many requests, one whose patch has
    ended may wait for a few steps, until others have come as far: the global transformer then runs once for all of
    them. What goes wrong with one request, such as a grammar that becomes too complex, ends that request alone
    (`stopped_by` is `error`).

    Args:
        lm: the model; its weights and its patch rule must stay the same while the engine lives.
        drafter: what drafts bytes; None for one byte per step.
        prompt_bytes_per_step: most bytes of new prompts that a step reads, so that a long one does not keep the
            other requests waiting; where PyTorch decodes, one whole prompt. None: `add` reads all prompts at once.
        static: write by compiled steps of fixed shapes (`blt.lm.StaticConfig`), as pays on a GPU; not with a drafter.

    Raises:
        ConfigurationError: the drafter cannot draft for this model.
    """

    def __init__(
        self,
        lm: LanguageModel,
        *,
        drafter: Drafter | None = None,
        prompt_bytes_per_step: int | None = None,
        static: StaticConfig | None = None,
    ) -> None:
        if drafter is not None:
            drafter.check_serves(lm)
        is_count = prompt_bytes_per_step is None or prompt_bytes_per_step >= 1
        check(is_count, f"prompt_bytes_per_step: at least 1, got {prompt_bytes_per_step}")
        check(drafter is None or static is None, "static: a step of one byte; give a drafter or static, not both")
        self.lm = lm
        self.session = DecodingSession(lm, static=static)
        self.drafter = drafter
        self._prompt_bytes_per_step = prompt_bytes_per_step
        self._is_static = static is not None
        self.num_passes = 0
        """How often the model has read bytes that were written: once per step, more often within the native decoder."""
        self._running: dict[int, _Running] = {}  # by row of the session
        self._prompts: deque[_Prompt] = deque()  # not read to the end yet

    def warm_up(self) -> None:
        """Compile static steps, and record them, before the first request; without them there is nothing to do.

        Raises:
            ConfigurationError: they cannot be compiled.
        """
        if self._is_static:
            rows, _ = self.session.add([encode(b"", bos=True)])
            for byte in PARAGRAPH[:WARM_UP_BYTES].encode():
                self.session.read(torch.tensor([[byte + BYTE_OFFSET]]), rows)
            self.session.remove(rows)

    @property
    def num_running(self) -> int:
        """How many requests are not over."""
        return len(self._running) + len(self._prompts)

    def add(self, requests: Sequence[Request]) -> None:
        """Add requests; their prompts are read in one parallel pass, or in slices by the steps to come."""
        new = [request for request in requests if request.stopped_by is None]
        if not new:
            return
        if self._prompt_bytes_per_step is not None:
            for row, request in zip(self.session.start(len(new)).tolist(), new, strict=True):
                self._prompts.append(_Prompt(request, row, encode(request.prompt, bos=True)))
            return
        rows, logits = self.session.add([encode(request.prompt, bos=True) for request in new])
        for row, request, scores in zip(rows.tolist(), new, logits.cpu().numpy(), strict=True):
            self._running[row] = _Running(request, scores, native_row=self._native_row(request, row, scores))

    def remove(self, request: Request) -> None:
        """Remove a request before it is over; does nothing if it has left already."""
        for row, running in list(self._running.items()):
            if running.request is request:
                self._leave(row)
        for prompt in [prompt for prompt in self._prompts if prompt.request is request]:
            self._prompts.remove(prompt)
            self.session.remove(np.array([prompt.row]))

    def step(self) -> list[Request]:
        """Read prompts on, and write on.

        Returns:
            The requests that were read or written on, those that are over now included; none when all are.
        """
        reading = self._read_prompts()
        written = self._write()
        return written + [request for request in reading if request not in written]

    def _write(self) -> list[Request]:
        """Write on every request whose prompt has been read."""
        rows = np.array(sorted(self._running), dtype=np.int64)
        running = [self._running[row] for row in rows.tolist()]
        self._generate_natively([one for one in running if one.native_row is not None])
        chosen = [(one, row) for one, row in zip(running, rows.tolist(), strict=True) if one.native_row is None]
        for one, _ in chosen:
            one.choose()
        going = [(one, row) for one, row in chosen if one.request.stopped_by is None]
        if going:
            self._read([one for one, _ in going], np.array([row for _, row in going], dtype=np.int64))
        for row, one in zip(rows.tolist(), running, strict=True):
            if one.request.stopped_by is not None:
                self._leave(row)
        return [one.request for one in running]

    def _read_prompts(self) -> list[Request]:
        """Read the next slice of the prompts that wait; those that have been read to the end are written from now on.

        The prompt that waits longest comes first, and goes to the end of the queue where its slice is not its last, so
        that a short prompt waits for one slice of a long one and not for all of them.
        """
        portion: list[tuple[_Prompt, Int[Tensor, " _"]]] = []
        room = self._prompt_bytes_per_step or 0
        while self._prompts and room > 0:
            prompt = self._prompts.popleft()
            part = prompt.next_part(room if self.session.reads_in_parts else len(prompt.ids))
            portion.append((prompt, part))
            room -= len(part)
        if not portion:
            return []
        rows = np.array([prompt.row for prompt, _ in portion], dtype=np.int64)
        try:
            logits = self.session.prefill(rows, [part for _, part in portion]).cpu().numpy()
        except Exception as error:  # noqa: BLE001 (such as a lack of memory: those that are written are not concerned)
            self.session.remove(rows)
            for prompt, _ in portion:
                prompt.request.fail(error)
            return [prompt.request for prompt, _ in portion]
        for (prompt, _), scores in zip(portion, logits, strict=True):
            if prompt.is_read:
                native_row = self._native_row(prompt.request, prompt.row, scores)
                self._running[prompt.row] = _Running(prompt.request, scores, native_row=native_row)
            else:
                self._prompts.append(prompt)
        return [prompt.request for prompt, _ in portion]

    def _native_row(self, request: Request, row: int, logits: npt.NDArray[np.float32]) -> GenerationRow | None:
        """Return what lets the native decoder continue a request by itself; None if each byte needs the host.

        A request with a grammar, a repetition penalty or log-probabilities does, and so does drafting by the decoder.
        """
        if not self.session.is_native or (self.drafter is not None and self.drafter.config.by == "decoder"):
            return None
        sampling = request.plain_sampling()
        max_draft = 0 if self.drafter is None else self.drafter.config.max_draft
        return None if sampling is None else GenerationRow(row, logits, sampling, max_draft=max_draft)

    def _generate_natively(self, running: "Sequence[_Running]") -> None:
        """Continue requests in the native decoder."""
        rows = [one.native_row for one in running if one.native_row is not None]
        if not rows:
            return
        config = None if self.drafter is None else self.drafter.config
        written, num_passes = self.session.generate(
            rows,
            max_bytes=bytes_per_step(len(rows)),
            max_draft=0 if config is None else config.max_draft,
            min_probability=1.0 if config is None else config.least_probability,
        )
        self.num_passes += num_passes
        for one, row, data in zip(running, rows, written, strict=True):
            one.request.accept(data, stopped_by=None if row.stopped_by == "broken" else row.stopped_by)
            if row.stopped_by == "broken" and one.request.stopped_by is None:
                one.request.fail(broken_logits(float(row.logits.max())))

    def _read(self, running: "Sequence[_Running]", rows: npt.NDArray[np.int64]) -> None:
        """Read the bytes that were chosen, and those that are drafted to follow."""
        self.num_passes += 1
        chosen = torch.tensor([[one.chosen] for one in running], device="cpu")  # on the host, as what is drafted
        drafts: list[list[int]] = [[] for _ in running]
        if self.drafter is None:
            step, logits = None, self.session.read(chosen, rows).cpu().numpy()  # R M V
        else:
            step = self.session.step(rows)
            most = self.session.max_rollback - 1
            drafts = self.drafter.draft(step, chosen, [one.request for one in running], most=most)
            logits = step.forward().cpu().numpy()
        taken_back = np.array(
            [one.check(drafted, scores) for one, drafted, scores in zip(running, drafts, logits, strict=True)]
        )
        if self.drafter is not None:
            for drafted, num_vain in zip(drafts, taken_back.tolist(), strict=True):
                self.drafter.note(drafted=len(drafted), right=min(len(drafted), logits.shape[1] - 1 - num_vain))
        if step is not None and taken_back.any():
            step.rewind(taken_back)

    def _leave(self, row: int) -> None:
        del self._running[row]
        self.session.remove(np.array([row]))


class _Prompt:
    """A request whose prompt has not been read to the end."""

    def __init__(self, request: Request, row: int, ids: Int[Tensor, " T"]) -> None:
        self.request, self.row, self.ids = request, row, ids
        self._num_read = 0

    @property
    def is_read(self) -> bool:
        """Whether all of it has been read."""
        return self._num_read == len(self.ids)

    def next_part(self, length: int) -> Int[Tensor, " t"]:
        """Return the next ids, at most `length`, and count them as read."""
        part = self.ids[self._num_read : self._num_read + length]
        self._num_read += len(part)
        return part


class _Running:
    """A request, with the logits that its next byte is chosen from or the byte that was chosen and is not read yet.

    Args:
        request: the request.
        logits: `V`; of what follows its prompt.
        native_row: what the native decoder continues it by; None where the host chooses.
    """

    def __init__(self, request: Request, logits: npt.NDArray[np.float32], *, native_row: GenerationRow | None) -> None:
        self.request, self.native_row = request, native_row
        self.chosen = -1
        self._logits: npt.NDArray[np.float32] | None = logits

    def choose(self) -> None:
        """Choose the next byte, if that has not been done."""
        if self._logits is not None:
            self.chosen, self._logits = self._choose(self._logits), None

    def check(self, drafted: Sequence[int], logits: npt.NDArray[np.float32]) -> int:
        """Choose one byte after another while they are what was drafted; return how many drafts were wrong.

        Args:
            drafted: the bytes that were read after the one that was chosen, those of no other row.
            logits: `M V`; of what follows the chosen byte and each that was read after it.
        """
        for number, draft in enumerate(drafted):
            if self.request.stopped_by is not None:
                break
            self.chosen = self._choose(logits[number])
            if self.chosen != draft:
                return len(logits) - 1 - number
        self._logits = logits[len(drafted)]
        return len(logits) - 1 - len(drafted)

    def _choose(self, logits: npt.NDArray[np.float32]) -> int:
        """Choose the next byte.

        Whatever goes wrong here is the request's own: its sampler and its grammar belong to nobody else. Were it raised
        from a step, the rows before this one would have chosen a byte that is never read. So it ends this request, and
        EOS stands for the byte that did not come; nobody reads it.
        """
        try:
            return self.request.choose(logits)
        except Exception as error:  # noqa: BLE001 (whatever it is, it ends this request alone)
            self.request.fail(error)
            return EOS_ID
