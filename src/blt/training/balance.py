"""Sharing out the rows of a batch so that all ranks have about the same work.

A row costs what its patches cost, and rows differ in patches. Ranks wait for each other where they exchange gradients,
so that the slowest one sets the pace.
"""

from collections.abc import Sequence


def share_out(costs: Sequence[float], *, ranks: int, parts: int) -> list[list[int]]:
    """Return the rows of each rank, in the order of its accumulated parts: as many for each, and costs about equal.

    Rows go from the most to the least expensive to the cheapest part that still has room (greedy scheduling by longest
    processing time, Graham 1969). The parts are then dealt out by cost, to and fro, so that the ranks' first parts cost
    alike, their second ones too, and what is left over evens out.

    Args:
        costs: of all rows.
        ranks: number of ranks.
        parts: accumulated parts per rank; ranks × parts divides the number of rows.
    """
    num_parts = ranks * parts
    assert len(costs) % num_parts == 0
    room = len(costs) // num_parts
    members: list[list[int]] = [[] for _ in range(num_parts)]
    totals = [0.0] * num_parts
    for row in sorted(range(len(costs)), key=lambda row: (-costs[row], row)):
        part = min((number for number in range(num_parts) if len(members[number]) < room), key=totals.__getitem__)
        members[part].append(row)
        totals[part] += costs[row]
    by_cost = sorted(range(num_parts), key=lambda part: (-totals[part], part))
    shares: list[list[int]] = [[] for _ in range(ranks)]
    for place, part in enumerate(by_cost):
        turn, rank = divmod(place, ranks)
        shares[rank if turn % 2 == 0 else ranks - 1 - rank] += members[part]
    return shares
