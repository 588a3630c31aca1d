import pytest

from blt.distributed import REPLICATE, SHARD, World, new_mesh
from blt.errors import ConfigurationError
from ranks import run_ranks


def test_the_ranks_of_a_replica_lie_beside_each_other(tmp_path):
    def work(world):
        mesh = new_mesh(world, device_type="cpu", shards=2)
        assert (mesh[REPLICATE].size(), mesh[SHARD].size()) == (2, 2)
        assert (mesh[REPLICATE].get_local_rank(), mesh[SHARD].get_local_rank()) == divmod(world.rank, 2)
        assert new_mesh(world, device_type="cpu", shards=None)[SHARD].size() == 4

    run_ranks(4, work, tmp_path)


def test_a_number_of_shards_that_does_not_divide_the_ranks_is_refused():
    with pytest.raises(ConfigurationError, match="shards: 3 does not divide the number of ranks, 4"):
        new_mesh(World(size=4), device_type="cpu", shards=3)
