import threading
import time
from datetime import timedelta

import pytest
from torch.distributed import HashStore

from blt.distributed.meeting import agree_on_name
from blt.errors import TrainingError


def meet(store, *, size, late=()):
    """Have ranks meet in threads; returns the name that each has got."""
    names = {}

    def join(rank):
        time.sleep(0.1 if rank in late else 0)
        names[rank] = agree_on_name(store, rank=rank, size=size, timeout=timedelta(seconds=20))

    threads = [threading.Thread(target=join, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [names[rank] for rank in range(size)]


@pytest.mark.parametrize("late", [(), (0,), (1,), (1, 2)])
def test_all_ranks_of_an_attempt_get_one_name_that_no_earlier_attempt_had(late):
    store, seen = HashStore(), set()
    for _ in range(4):
        names = meet(store, size=3, late=late)
        assert len(set(names)) == 1
        assert names[0] not in seen
        seen.add(names[0])


def test_an_attempt_of_which_a_rank_died_before_all_had_met_does_not_disturb_the_next():
    store = HashStore()
    with pytest.raises(TrainingError, match="rank 1: waited 0 s for the other 2 ranks"):
        agree_on_name(store, rank=1, size=3, timeout=timedelta(seconds=0.05))
    with pytest.raises(TrainingError, match="rank 0"):
        agree_on_name(store, rank=0, size=2, timeout=timedelta(seconds=0.05))  # proposes to the dead rank
    assert len(set(meet(store, size=2))) == 1
