"""How the ranks of one attempt meet, where an earlier attempt has left its addresses in the same store.

torchrun keeps one store over all restarts (PyTorch 2.13), and a rank that is started again would find the addresses of
processes that are dead. So the ranks agree on a name first, under which nothing has been stored.
"""

import json
import time
import uuid
from datetime import timedelta

from torch.distributed.distributed_c10d import Store

from blt.errors import TrainingError

_POLL_SECONDS = 0.02


def agree_on_name(store: Store, *, rank: int, size: int, timeout: timedelta) -> str:
    """Return a name that all ranks of this attempt get, and no rank of another.

    Each rank but the first stores a number drawn at random. The first one proposes a name together with all these
    numbers; a rank accepts a proposal that has its own number, and the name holds once all have accepted. Numbers of
    dead ranks are replaced by those of their successors, whereupon the first rank proposes anew.

    Args:
        store: shared by all ranks, of earlier attempts too.
        rank: of this process.
        size: number of ranks.
        timeout: how long to wait for the others.

    Raises:
        TrainingError: some rank did not come in time.
    """
    deadline = time.monotonic() + timeout.total_seconds()
    own = uuid.uuid4().hex
    name, accepted = "", {rank}
    proposed: dict[str, str] = {}
    if rank > 0:
        store.set(f"meeting/{rank}", own)
    while time.monotonic() < deadline:
        if rank == 0:
            numbers = {str(other): _read(store, f"meeting/{other}") for other in range(1, size)}
            if all(numbers.values()) and (numbers != proposed or not name):
                name, proposed, accepted = uuid.uuid4().hex, numbers, {rank}
                store.set("meeting/proposal", json.dumps({"name": name, "numbers": numbers}))
            accepted |= {other for other in range(1, size) if name and store.check([f"meeting/{name}/{other}"])}
            if name and len(accepted) == size:
                store.set(f"meeting/{name}/holds", "1")
                return name
        else:
            proposal = json.loads(_read(store, "meeting/proposal") or "{}")
            if proposal.get("numbers", {}).get(str(rank)) == own:
                store.set(f"meeting/{proposal['name']}/{rank}", "1")
                if store.check([f"meeting/{proposal['name']}/holds"]):
                    return str(proposal["name"])
        time.sleep(_POLL_SECONDS)
    raise TrainingError(f"rank {rank}: waited {timeout.total_seconds():.0f} s for the other {size - 1} ranks")


def _read(store: Store, key: str) -> str:
    """Return what is stored, or nothing, without waiting for it."""
    return store.get(key).decode() if store.check([key]) else ""
