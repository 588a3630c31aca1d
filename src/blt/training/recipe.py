"""A recipe: everything that a run is made of, in one TOML file."""

import math
import tomllib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from blt.configuration import (
    FORMER_NAME,
    check,
    check_path,
    check_range,
    check_rate,
    dotted,
    from_dict,
    to_dict,
    with_current_names,
    with_current_path,
    with_overrides,
)
from blt.entropy import EntropyConfig
from blt.errors import ConfigurationError
from blt.model import BLTConfig, preset
from blt.patching import EntropyRule, PatchRule
from blt.training.optimizers import AdamWConfig, OptimizerConfig
from blt.training.parts import PartsConfig
from blt.training.schedules import CosineConfig, ScheduleConfig

MAX_BATCH = 2**24
"""The most rows of a batch, and the most bytes of a row."""


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """One source of a mixture."""

    folder: str
    """Folder written by `blt prepare`; its `train` split."""
    weight: float | None = None
    """Share of the rows, relative to the other sources; None, for all of them: by their sizes."""
    epochs: float | None = None
    """Most times that it is read; the other sources then share out its rows. None: no limit."""

    def __post_init__(self) -> None:
        check_path("folder", self.folder)
        for name in ("weight", "epochs"):
            if getattr(self, name) is not None:
                check_rate(name, getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What to learn from, and what to measure on."""

    train: str | None = None
    """Folder written by `blt prepare`; its `train` split. None: a mixture of `sources`."""
    sources: tuple[SourceConfig, ...] = ()
    """A mixture: one table `[[data.sources]]` for each, with `folder`, `weight` (its share of the rows, relative to the
    others; without any, by size) and `epochs` (most times that it is read; the others then share out its rows)."""
    validation: str | None = None
    """Folder whose documents are held out; None means the `validation` split of `train`."""
    validation_documents: int = 100
    """How many held-out documents each validation reads."""

    def __post_init__(self) -> None:
        check_path("train", self.train)
        check(self.train is not None or bool(self.sources), "train: missing; name a folder that `blt prepare` wrote")
        check(self.train is None or not self.sources, "sources: give them or train, not both")
        check(
            not self.sources or self.validation is not None,
            "validation: missing; beside sources, name a folder of held-out documents",
        )
        check(
            len({source.weight is None for source in self.sources}) < 2,
            "sources: some have a weight and some have none; give each a weight, or none",
        )
        check_path("validation", self.validation)
        check_range("validation_documents", self.validation_documents, 1)


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """One stage's training loop."""

    num_steps: int
    """Optimiser steps."""
    batch_size: int = field(default=16, metadata={FORMER_NAME: "rows"})
    """Rows of a batch, over all ranks and accumulated parts."""
    sequence_length: int = field(default=512, metadata={FORMER_NAME: "window"})
    """Bytes per row."""
    accumulation: int = 1
    """Parts that a batch is computed in, to save memory; losses are the same for any number (but for dropout)."""
    optimizer: OptimizerConfig = field(default_factory=AdamWConfig)
    """What moves the weights."""
    schedule: ScheduleConfig = field(default_factory=CosineConfig)
    """How the learning rate goes."""
    clip: float = 1.0
    """Clip the gradients of an optimiser step to this global norm."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of matrix products; `auto` takes bfloat16 where a GPU or processor has it built in, else float32."""
    compile: bool = False
    """Compile with torch.compile: slower to start, faster after."""
    parallel: Literal["none", "ddp", "fsdp"] = "ddp"
    """How the processes that torchrun started share a batch: `ddp`, each holds all weights; `fsdp`, they share out
    weights, gradients and optimiser states; `none`, more than one is refused. One process alone needs neither."""
    shards: int | None = None
    """Processes of one replica under `fsdp`, which share out its weights; None: all are one replica."""
    balance: bool = True
    """Share the rows of a batch out to processes by what their patches cost; False: in the order of the rows."""
    recompute: bool = False
    """Compute the inner values of a layer again in the backward pass, instead of keeping them: a third more time for
    much less memory."""
    slots_multiple: int = 1
    """Round patches per row up to a multiple, so that compiled code sees few shapes."""
    log_every: int = 10
    """Steps between lines of `metrics.jsonl`."""
    validate_every: int = 500
    """Steps between validations; there is always one at the end."""
    checkpoint_every: int = 500
    """Steps between checkpoints; there is always one at the end, and one when the run is stopped."""
    keep_every: int | None = None
    """Steps between checkpoints that are never deleted; None means only the last and the best are kept."""

    def __post_init__(self) -> None:
        for name in ("num_steps", "accumulation", "log_every", "validate_every", "checkpoint_every"):
            check_range(name, getattr(self, name), 1)
        for name in ("batch_size", "sequence_length", "slots_multiple"):
            check_range(name, getattr(self, name), 1, MAX_BATCH)
        check(
            self.batch_size % self.accumulation == 0,
            f"accumulation: {self.accumulation} does not divide batch_size, {self.batch_size}",
        )
        check_rate("clip", self.clip)
        if self.shards is not None:
            check_range("shards", self.shards, 1)
            check(self.parallel == "fsdp", f'shards: only parallel = "fsdp" has them, here it is {self.parallel!r}')
        if self.keep_every is not None:
            check_range("keep_every", self.keep_every, 1)


@dataclass(frozen=True, kw_only=True)
class EntropyStage:
    """First stage: the entropy model."""

    model: EntropyConfig
    """Its shape."""
    loop: LoopConfig
    """How it is trained."""


@dataclass(frozen=True, kw_only=True)
class PatchingStage:
    """Second stage: where patches end."""

    rule: PatchRule = field(default_factory=lambda: EntropyRule(threshold=1.0))
    """The rule; its threshold is what calibration replaces."""
    mean_patch_bytes: float | None = 4.4
    """Target mean patch length in bytes; None keeps the rule's own threshold."""
    calibration_documents: int = 2000
    """Training documents on which the threshold is found."""

    def __post_init__(self) -> None:
        wanted, longest = self.mean_patch_bytes, self.rule.max_length
        check_range("calibration_documents", self.calibration_documents, 1)
        if wanted is None:
            return
        check(1 <= wanted < math.inf, f"mean_patch_bytes: a patch holds at least 1 byte, got {wanted}")
        check(
            longest is None or wanted <= longest or not self.rule.needs_entropies,
            f"mean_patch_bytes: {wanted} is more than the longest patch, max_length {longest}, has; lower one or raise "
            "the other",
        )


@dataclass(frozen=True, kw_only=True)
class BLTStage:
    """Third stage: the model proper."""

    model: BLTConfig | None = None
    """Its shape, or `preset = "NAME"` with single fields changed; None means that of `start_from`."""
    loop: LoopConfig
    """How it is trained."""
    parts: PartsConfig = field(default_factory=PartsConfig)
    """Which parts are trained, how fast, and from which step on."""
    sparse_ngrams: bool = False
    """Update only the rows of the n-gram tables that a batch reads (`RowAdam`), for tables of hundreds of
    thousands of rows; the moments of the others wait, which makes the losses a little different."""
    layer_dropout: float = 0.0
    """Share of the positions that go without what a layer's attention, and apart from that its feed-forward, adds, at
    random, in training: for many epochs over little text. Training figures then lie above held-out ones; 0: off."""
    ngram_dropout: float = 0.0
    """Share of the bytes that go without their n-grams, at random, in training: for many epochs over little text. What
    is said of `layer_dropout` holds here too."""

    def __post_init__(self) -> None:
        for name in ("layer_dropout", "ngram_dropout"):
            check(0 <= getattr(self, name) < 1, f"{name}: {getattr(self, name)}; from 0 to below 1")
        has_tables = self.model is None or bool(self.model.hash_embedding.ngram_sizes)
        for name in ("sparse_ngrams", "ngram_dropout"):
            check(has_tables or not getattr(self, name), f"{name}: the model has no n-gram tables")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole run."""

    out: str
    """Run folder: checkpoints, metrics, curves and, at the end, `model`."""
    data: DataConfig
    """What to learn from."""
    blt: BLTStage
    """The model proper."""
    start_from: str | None = None
    """Model to go on from: a folder, `tiny` for the bundled one, a name in `checkpoints`, or one on the Hub; None means
    new weights."""
    entropy: EntropyStage | None = None
    """The entropy model; None means that of `start_from`, or none, for rules that need none."""
    patching: PatchingStage | None = None
    """Where patches end; None means as in `start_from`, or an entropy rule at 4.4 bytes per patch."""
    seed: int = 0
    """Of new weights, of the order of training rows and of what is dropped."""
    device: str = "auto"
    """As PyTorch names it; `auto` takes a GPU if there is one."""
    sample_prompt: str = "Once upon a time"
    """What the model continues at each validation, to show what it has learnt."""
    tensorboard: bool = False
    """Write TensorBoard event files too (extra `track`)."""

    def __post_init__(self) -> None:
        check_path("out", self.out)
        check_path("start_from", self.start_from)
        check_range("seed", self.seed, 0)
        if self.start_from is not None:
            return  # what is missing here, that model has
        check(self.blt.model is not None, "blt.model: missing; give a shape, a preset, or start_from")
        patching = self.patching or PatchingStage()
        object.__setattr__(self, "patching", patching)
        check(
            self.entropy is not None or not patching.rule.needs_entropies,
            f"patching.rule: {type(patching.rule).__name__} needs an entropy model; add an [entropy] stage",
        )


def load_recipe(path: str | Path, *, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe; a `FutureWarning` names the fields that go by a former name.

    Args:
        path: a TOML file.
        overrides: dotted keys and values set on top of it, such as `{"blt.loop.batch_size": "8"}`.

    Raises:
        ConfigurationError: not readable as TOML, an unknown key, or a value that cannot be.
    """
    try:
        values: dict[str, Any] = tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:  # no TOML, no UTF-8, numbers or nesting beyond all bounds
        raise ConfigurationError(f"{path}: not readable as TOML ({error})") from None
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror or error}; give a recipe, a TOML file") from None
    try:
        values, former = with_current_names(Recipe, values)
        current = {given: with_current_path(Recipe, given) for given in overrides or {}}
        former |= {given: new.rpartition(".")[2] for given, new in current.items() if new != given}
        check(
            len(set(current.values())) == len(current), f"{', '.join(former)}: given by its current name too; give one"
        )
        values = with_overrides(values, {current[given]: value for given, value in (overrides or {}).items()})
        recipe: Recipe = from_dict(Recipe, _with_preset(values))
    except RecursionError:
        raise ConfigurationError(f"{path}: tables within tables without end; see blt train --fields") from None
    if former:
        renamed = ", ".join(f"{given} is now {name}" for given, name in former.items())
        warnings.warn(f"deprecated names of fields: {renamed}", FutureWarning, stacklevel=2)
    return recipe


def _with_preset(values: dict[str, Any]) -> dict[str, Any]:
    """Replace `blt.model.preset` by that preset's fields, under those that the recipe sets itself."""
    stage = values.get("blt")
    model = stage.get("model") if isinstance(stage, Mapping) else None
    if not isinstance(model, Mapping) or "preset" not in model:
        return values
    changed = {key: value for key, value in model.items() if key != "preset"}
    merged = with_overrides(to_dict(preset(str(model["preset"]))), dotted(changed))
    return with_overrides(values, {"blt.model": merged})
