"""Several processes that train one model: who they are, how they lie in a mesh, and what they sum.

In: what torchrun set in the environment. Out: a `World`, a `DeviceMesh`, sums over ranks.
Next: `blt.training.parallelize`.
"""

from blt.distributed.columns import join_columns
from blt.distributed.mesh import REPLICATE, SHARD, new_mesh
from blt.distributed.sparse import sum_rows
from blt.distributed.world import LIFE_SECONDS, PATIENCE, World, choose_device, joined_world, num_processors

__all__ = [
    "LIFE_SECONDS",
    "PATIENCE",
    "REPLICATE",
    "SHARD",
    "World",
    "choose_device",
    "join_columns",
    "joined_world",
    "new_mesh",
    "num_processors",
    "sum_rows",
]
