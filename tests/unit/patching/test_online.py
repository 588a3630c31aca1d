import pytest
import torch

from blt.codec import BOS_ID, EOS_ID, encode
from blt.errors import ConfigurationError
from blt.patching import EntropyRiseRule, EntropyRule, OnlinePatcher, SpaceRule, StaticRule


def test_a_patcher_says_where_each_row_ends_a_patch():
    online = OnlinePatcher(StaticRule(length=2), batch=2)
    rows = torch.tensor([[BOS_ID, 70, 71, 72, EOS_ID], [70, 71, 72, 73, 74]])
    ends = torch.stack([online.step(rows[:, t]) for t in range(5)], dim=1)
    assert ends.tolist() == [[True, False, True, False, True], [False, True, False, True, False]]


def test_the_caller_may_reuse_its_buffers():
    online, ids, entropies = OnlinePatcher(EntropyRiseRule(threshold=1.0), batch=1), torch.tensor([70]), torch.zeros(1)
    online.step(ids, entropies)
    entropies.fill_(5.0)
    assert online.step(ids, entropies).item()


def test_rows_can_be_restarted_by_mask():
    online = OnlinePatcher(StaticRule(length=2), batch=2)
    online.step(torch.tensor([70, 70]))
    online.reset(torch.tensor([False, True]))
    assert online.step(torch.tensor([70, 70])).tolist() == [True, False]


def test_a_patcher_after_a_prompt_knows_how_long_its_open_patch_is():
    prompts = torch.stack([encode("abcd"), encode("a cd")])
    online = OnlinePatcher.after(prompts, lengths=torch.tensor([4, 3]), rule=SpaceRule(max_length=5))
    assert online.step(encode("xx")).tolist() == [True, False]


def test_no_rows_is_a_batch_too():
    online = OnlinePatcher(StaticRule(length=2), batch=0)
    assert online.step(encode("")).tolist() == []
    online.append(OnlinePatcher(StaticRule(length=2), batch=1))
    assert online.batch == 1


def test_rows_of_another_rule_cannot_join():
    with pytest.raises(ConfigurationError, match="cannot join"):
        OnlinePatcher(SpaceRule(), batch=1).append(OnlinePatcher(SpaceRule(max_length=2), batch=1))


def test_a_step_without_the_entropies_it_needs_says_so():
    with pytest.raises(ConfigurationError, match="needs entropies, and got none"):
        OnlinePatcher(EntropyRule(threshold=1.0), batch=1).step(encode("a"))
