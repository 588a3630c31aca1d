"""The mesh of ranks, replicate × shard: weights are divided along `shard`, and copied along `replicate`."""

from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from blt.configuration import check
from blt.distributed.world import World

REPLICATE, SHARD = "replicate", "shard"
"""Names of the two dimensions."""


def new_mesh(world: World, *, device_type: str, shards: int | None) -> DeviceMesh:
    """Lay the ranks out, those of one replica beside each other; all ranks must call this.

    Args:
        world: this process among all.
        device_type: such as `cuda`.
        shards: ranks of one replica, which share out its weights; None: all ranks are one replica.

    Raises:
        ConfigurationError: the ranks are no multiple of `shards`.
    """
    shards = world.size if shards is None else shards
    check(world.size % shards == 0, f"shards: {shards} does not divide the number of ranks, {world.size}")
    return init_device_mesh(device_type, (world.size // shards, shards), mesh_dim_names=(REPLICATE, SHARD))
