"""Law 3, causality and truncation of every patch rule; and that the checks see rules that break them."""

from collections.abc import Callable

import checks_patching as checks
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from patching_rows import batches, byte_ids, documents, nats, rules

from blt.codec import encode
from blt.patching import OnlinePatcher, Patches, PatchRule, SpaceRule, StaticRule, patch

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # machines may be shared
Batch = tuple[torch.Tensor, torch.Tensor]


def divide_by(rule: PatchRule) -> checks.Divide:
    return lambda ids, entropies: patch(ids, rule, entropies=entropies).ends


def uncertain(text: str, *, bos: bool = True, eos: bool = True) -> Batch:
    """One row of text whose entropies rise and fall."""
    ids = encode(text, bos=bos, eos=eos)[None]
    return ids, torch.arange(ids.shape[1]).remainder(3).float()[None]


@unhurried
@given(rules(), batches())
def test_every_byte_lies_in_exactly_one_patch(rule: PatchRule, batch: Batch):
    ids, entropies = batch
    checks.check_every_byte_lies_in_exactly_one_patch(patch(ids, rule, entropies=entropies))


@unhurried
@given(rules(), batches())
def test_documents_end_patches(rule: PatchRule, batch: Batch):
    checks.check_documents_end_patches(divide_by(rule), *batch)


@unhurried
@given(rules(), batches(max_rows=2))
def test_patches_of_a_prefix_are_a_prefix_of_the_patches(rule: PatchRule, batch: Batch):
    checks.check_truncation(divide_by(rule), *batch)


@unhurried
@given(rules(), batches(min_size=1), st.data())
def test_changing_a_byte_changes_no_end_before_it(rule: PatchRule, batch: Batch, data: st.DataObject):
    position = data.draw(st.integers(0, batch[0].shape[1] - 1))
    byte_id, entropy = data.draw(byte_ids), data.draw(nats)
    checks.check_causality(divide_by(rule), *batch, position=position, byte_id=byte_id, entropy=entropy)


@unhurried
@given(rules(), documents())
def test_documents_in_one_row_are_patched_as_if_alone(rule: PatchRule, some: list[Batch]):
    checks.check_packing(divide_by(rule), some)


@unhurried
@given(rules(st.integers(1, 6)), batches(min_size=1))
def test_no_patch_is_longer_than_max_length(rule: PatchRule, batch: Batch):
    assert rule.max_length is not None
    checks.check_max_length(divide_by(rule)(*batch), max_length=rule.max_length)


@unhurried
@given(rules(), batches())
def test_online_equals_offline(rule: PatchRule, batch: Batch):
    online = OnlinePatcher(rule, batch=batch[0].shape[0])
    checks.check_online_equals_offline(online, divide_by(rule), *batch)


@unhurried
@given(rules(), batches(), st.data())
def test_a_patcher_built_after_rows_of_unequal_lengths_goes_on_as_offline(
    rule: PatchRule, batch: Batch, data: st.DataObject
):
    ids, entropies = batch
    num_rows, length = ids.shape
    lengths = torch.tensor(data.draw(st.lists(st.integers(0, length), min_size=num_rows, max_size=num_rows)))
    online = OnlinePatcher.after(ids, lengths=lengths, rule=rule, entropies=entropies)
    offline = divide_by(rule)(ids, entropies)
    for row in range(num_rows):
        one = OnlinePatcher.after(ids[row, None], lengths=lengths[row, None], rule=rule, entropies=entropies[row, None])
        for t in range(int(lengths[row]), length):
            assert one.step(ids[row, t, None], entropies[row, t, None]).item() == offline[row, t]
    for ahead in range(length - int(lengths.max())):  # all rows at once, each at its own position
        here = (lengths + ahead)[:, None]
        ends = online.step(ids.gather(1, here)[:, 0], entropies.gather(1, here)[:, 0])
        assert torch.equal(ends, offline.gather(1, here)[:, 0])


@unhurried
@given(rules(), batches(max_rows=4, min_size=2), st.data())
def test_rows_that_join_and_restart_are_patched_as_if_alone(rule: PatchRule, batch: Batch, data: st.DataObject):
    ids, entropies = batch
    num_rows, length = ids.shape
    offline = divide_by(rule)(ids, entropies)
    online, rows, positions = OnlinePatcher(rule, batch=num_rows), list(range(num_rows)), [0] * num_rows
    for _ in range(length):
        event = data.draw(st.sampled_from(["nothing", "append", "reset"]))
        if event == "append":
            online.append(OnlinePatcher(rule, batch=1))
            rows, positions = [*rows, 0], [*positions, 0]
        elif event == "reset":
            index = data.draw(st.integers(0, len(rows) - 1))
            online.reset(torch.tensor([index]))
            positions[index] = 0
        ends = online.step(ids[rows, positions], entropies[rows, positions])
        assert torch.equal(ends, offline[rows, positions])
        positions = [position + 1 for position in positions]


def stored_as_starts(ids: torch.Tensor, entropies: torch.Tensor) -> torch.Tensor:
    """Wrong: starts are stored, so the last patch is complete only because the row stops."""
    starts = patch(ids, SpaceRule(), entropies=entropies).ends.roll(1, 1)
    ends = starts.roll(-1, 1)
    if ends.shape[1]:
        ends[:, -1] = True
    return ends


def one_byte_ahead(ids: torch.Tensor, entropies: torch.Tensor) -> torch.Tensor:
    """Wrong: a patch ends before a space, which takes a look at the byte to come."""
    return patch(ids, SpaceRule(), entropies=entropies).ends.roll(-1, 1)


def above_the_mean(ids: torch.Tensor, entropies: torch.Tensor) -> torch.Tensor:
    """Wrong: the threshold is the row's own mean entropy, which depends on the bytes to come."""
    return entropies > entropies.mean()


def counted_from_the_row(ids: torch.Tensor, entropies: torch.Tensor) -> torch.Tensor:
    """Wrong: patches of 3 bytes run on across documents."""
    return (torch.arange(ids.shape[1]).expand(ids.shape) + 1) % 3 == 0


@pytest.mark.parametrize("flawed", [stored_as_starts, one_byte_ahead, above_the_mean])
def test_the_truncation_check_sees_a_rule_that_looks_ahead(flawed: checks.Divide):
    with pytest.raises(AssertionError, match="patched otherwise"):
        checks.check_truncation(flawed, *uncertain("one two three"))


@pytest.mark.parametrize("flawed", [one_byte_ahead, above_the_mean])
def test_the_causality_check_sees_a_rule_that_looks_ahead(flawed: checks.Divide):
    ids, entropies = uncertain("one two three")
    with pytest.raises(AssertionError, match="depends on byte"):
        checks.check_causality(flawed, ids, entropies, position=4, byte_id=ord("x") + 4, entropy=5.0)


@pytest.mark.parametrize(
    ("check", "flawed"),
    [
        (checks.check_documents_end_patches, counted_from_the_row),
        (checks.check_documents_end_patches, one_byte_ahead),
        (
            lambda divide, *row: checks.check_packing(divide, [(x[0], h[0]) for x, h in [row, row]]),
            counted_from_the_row,
        ),
        (lambda divide, *row: checks.check_max_length(divide(*row), max_length=2), counted_from_the_row),
    ],
)
def test_the_checks_see_a_rule_that_forgets_boundaries_or_lengths(check: Callable[..., None], flawed: checks.Divide):
    with pytest.raises(AssertionError):
        check(flawed, *uncertain("one two three!"))


class InclusivePatches(Patches):
    """Wrong: the byte that ends a patch is counted into the next."""

    @property
    def ids(self) -> torch.Tensor:
        return self.ends.long().cumsum(1)


def test_the_partition_check_sees_ids_that_are_off_by_one():
    ids, _ = uncertain("one two")
    with pytest.raises(AssertionError):
        checks.check_every_byte_lies_in_exactly_one_patch(InclusivePatches(ends=patch(ids, SpaceRule()).ends))


class ForgetfulPatcher(OnlinePatcher):
    """Wrong: begins anew with every byte."""

    def step(self, byte_ids: torch.Tensor, entropies: torch.Tensor | None = None) -> torch.Tensor:
        self.reset(torch.arange(self.batch))
        return super().step(byte_ids, entropies)


@pytest.mark.parametrize("rule", [SpaceRule(), StaticRule(length=3), StaticRule(length=9, max_length=2)])
def test_the_online_check_sees_a_patcher_without_memory(rule: PatchRule):
    with pytest.raises(AssertionError, match="differ"):
        checks.check_online_equals_offline(
            ForgetfulPatcher(rule, batch=1), divide_by(rule), *uncertain("one, two three")
        )
