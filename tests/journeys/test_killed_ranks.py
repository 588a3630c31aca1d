from kill_ranks import walk


def test_ranks_that_are_killed_while_saving_and_while_stepping_come_to_the_same_end(tmp_path):
    assert [kill.moment for kill in walk(tmp_path, kills=2, seed=0)] == ["save", "step"]
