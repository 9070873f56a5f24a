"""Scenarios of cells on a fleet of real nodes: inside a cell all or none, and cells take turns."""

from lab import Failed
from pinger import Pinger

IN_A_CELL = 2


def check(is_so, text):
    if not is_so:
        raise Failed(text)


def in_cells(fleet, more=""):
    """Puts the nodes in cells of two, by their numbers; the names of the cells, and of their nodes."""
    cells = {}
    for place, node in enumerate(fleet.nodes):
        cells.setdefault(f"c{place // IN_A_CELL + 1}", []).append(node.name)
    words = [word for cell, names in cells.items() for name in names for word in ("--cell", f"{name}={cell}")]
    fleet.operator.call("cutover", "fleet", "members", *words)
    fleet.configure("cells", more)
    return cells


def first_seen(pinger, release):
    """When each node was first seen to run a release; who never did is missing."""
    asked = {name: [asked for asked, _, seen in answers if seen == release] for name, answers in pinger.seen.items()}
    return {name: min(moments) for name, moments in asked.items() if moments}


def rate(fleet):
    return min(50, 500 / len(fleet.nodes))


def moves_cell_by_cell(fleet):
    """cells: the nodes of a cell switch together, cells one after the other, and all end on the new release"""
    cells = in_cells(fleet, 'waves = [{ nodes = ["n3"] }, { percent = 100 }]')
    new = fleet.publish()
    try:
        with Pinger(fleet.nodes, rate(fleet)) as pinger:
            fleet.roll_out(new, 0, seconds=120 + 60 * len(cells))
            fleet.all_serve(new, seconds=60)
    finally:
        fleet.configure()
    first = first_seen(pinger, new)
    spans = {cell: (min(first[name] for name in names), max(first[name] for name in names)) for cell, names in cells.items()}
    order = sorted(spans, key=spans.get)
    check(order[0] == "c2", f"the first wave was not the first: {order}")
    apart = max(last - begin for begin, last in spans.values())
    between = min(spans[after][0] - spans[before][1] for before, after in zip(order, order[1:]))
    # The second cell agrees on its instant when the first one keeps the release.
    check(between > fleet.times["lead"] - 1 > apart, f"nodes of a cell were {apart:.1f} s apart, two cells {between:.1f} s")
    return f"{len(cells)} cells; nodes of a cell {apart * 1000:.0f} ms apart at most, cells {between:.1f} s at least"


def keeps_failure_in_its_cell(fleet):
    """cells: where one node is sick its cell goes back as a whole and halts the rollout; who has it keeps it"""
    cells = in_cells(fleet, 'waves = [{ nodes = ["n1"] }, { nodes = ["n3"] }, { percent = 100 }]')
    old, new = fleet.apps[0].version(), fleet.publish()
    sick = next(app for app in fleet.apps if app.node.name == "n4")
    fleet.sicken(sick, new)
    try:
        with Pinger(fleet.nodes, rate(fleet)) as pinger:
            said = fleet.roll_out(new, 13, seconds=240)
    finally:
        fleet.configure()
    check("cell c2 went back" in said and "n4" in said, f"the reason names neither cell nor node: {said}")
    for cell, names in cells.items():
        for name in names:
            node = next(node for node in fleet.nodes if node.name == name)
            wanted = {"c1": [old, new], "c2": [old, new, old]}.get(cell, [old])
            seen = pinger.releases(node)
            check(seen == wanted or (cell == "c2" and seen == [old]), f"{name} of {cell} ran {seen}")
    # All are brought to one release again, as an operator does.
    fleet.sicken(sick, "none")
    fleet.roll_out(old, 0, seconds=240)
    fleet.all_serve(old)
    return said.splitlines()[0]
