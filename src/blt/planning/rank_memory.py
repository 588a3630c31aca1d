"""Memory of one rank in training, by part: that of the rank which holds most."""

from dataclasses import dataclass

from blt.model.memory import FLOAT32_BYTES, activation_bytes
from blt.planning.weights import shares_of
from blt.planning.workload import Workload


@dataclass(frozen=True, kw_only=True)
class RankMemory:
    """Peak memory of a rank, in bytes. Weights, gradients and moments are exact, the others estimates."""

    weights: int
    """float32, without n-gram tables; the frozen entropy model included."""
    gradients: int
    """float32, without n-gram tables."""
    moments: int
    """What the optimiser keeps, without n-gram tables."""
    tables: int
    """Weights, gradients and moments of the n-gram tables."""
    working_weights: int
    """Under FSDP the layers that are gathered at once and their gradients before they are summed; else the copies that
    autocast makes of the weights."""
    activations: int
    """What one forward pass keeps for the backward pass."""

    @property
    def total(self) -> int:
        """Sum of all."""
        return sum(getattr(self, name) for name in self.__dataclass_fields__)


def memory_of_rank(workload: Workload, *, ranks: int) -> RankMemory:
    """Return the memory of the rank that holds most.

    Args:
        workload: what is trained, and how ranks share it.
        ranks: how many there are.

    Raises:
        ConfigurationError: this number of ranks cannot train it.
    """
    workload.check_ranks(ranks)
    shares, entropy_model = shares_of(workload.model, workload.shards_of(ranks)), workload.cost.entropy_model
    # AdamW keeps two numbers per weight; Muon one per hidden matrix, which lies whole with its owner.
    moments = 2 * shares.dense if workload.optimizer == "adamw" else shares.owned + 2 * shares.unhidden
    return RankMemory(
        weights=FLOAT32_BYTES * (shares.dense + (0 if entropy_model is None else entropy_model.num_parameters)),
        gradients=FLOAT32_BYTES * shares.dense,
        moments=FLOAT32_BYTES * moments,
        tables=FLOAT32_BYTES * _table(workload, ranks=ranks),
        working_weights=_working_weights(workload, ranks=ranks),
        activations=activation_bytes(
            workload.model,
            batch_bytes=workload.bytes_of_part(ranks),
            mean_patch_bytes=workload.mean_patch_bytes,
            recompute=workload.recompute,
            bfloat16=workload.bfloat16,
        ),
    )


def updated_in_tables(workload: Workload, *, ranks: int) -> int:
    """Count the numbers of a rank's n-gram tables with a gradient in a step: all, or those of rows that are read."""
    hashing, held = workload.model.hash_embedding, shares_of(workload.model, workload.shards_of(ranks)).table
    if not workload.sparse_ngrams or not held:
        return held
    read = min(hashing.num_rows, workload.batch_size * workload.sequence_length)
    return held // hashing.num_rows * read


def _table(workload: Workload, *, ranks: int) -> int:
    """Count the numbers of weights, gradients, two moments and, of a sparse table, each row's count of steps.

    A sparse gradient has an entry per table and byte that a replica reads, until the entries of each row are added up.
    """
    hashing, held = workload.model.hash_embedding, shares_of(workload.model, workload.shards_of(ranks)).table
    gradients, rows = updated_in_tables(workload, ranks=ranks), hashing.num_tables * hashing.num_rows
    if not workload.sparse_ngrams or not held:
        return 3 * held + gradients
    num_bytes = workload.batch_size * workload.sequence_length * workload.shards_of(ranks) // ranks
    return 3 * held + rows + max(gradients, held // rows * hashing.num_tables * num_bytes)


def _working_weights(workload: Workload, *, ranks: int) -> int:
    """Return the bytes of whole weights beside the divided ones, or of autocast's copies.

    FSDP keeps the root gathered, and of the other groups the one that is computed, the next one, and the copy out of
    the message; of gradients those of one group, and of two their sums, in float32.
    """
    shares, size = shares_of(workload.model, workload.shards_of(ranks)), 2 if workload.bfloat16 else FLOAT32_BYTES
    if workload.is_divided(ranks):
        return 2 * size * shares.root + 4 * size * shares.largest + 2 * FLOAT32_BYTES * shares.largest
    return size * shares.linear if workload.bfloat16 else 0
