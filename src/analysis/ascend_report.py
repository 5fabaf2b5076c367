# SPDX-License-Identifier: Apache-2.0
"""What an Ascend card would run and whether it can, by MindSpore's documentation: figures, faults, tables."""

from collections import Counter
from typing import Any

from .graph_facts import STRUCTURAL, Graph, facts
from .platforms import documentation

_UNITS = ("B", "KiB", "MiB", "GiB")


def report(graphs: dict[str, Graph], *, factors_every: int = 1) -> dict[str, Any]:
    """Facts of each graph, and of each primitive its calls in each, its platforms, and where that is from.

    Where there is a graph "factors", also what its collectives are more than those of "train".

    Args:
        factors_every: updates of which one has factors.
    """
    counts = {name: Counter(node.primitive for node in graph.nodes) for name, graph in graphs.items()}
    primitives = []
    for primitive in sorted(set().union(*counts.values()) - STRUCTURAL):
        documented = documentation(primitive)
        primitives.append(
            {
                "primitive": primitive,
                "calls": {name: counts[name][primitive] for name in graphs},
                "platforms": documented.platforms,
                "where": documented.where,
            }
        )
    found = {"graphs": {name: facts(graph) for name, graph in graphs.items()}, "primitives": primitives}
    if "factors" in graphs:
        found["factors"] = _added(found["graphs"], factors_every)
    return found


def _added(graphs: dict[str, dict[str, Any]], every: int) -> dict[str, Any]:
    """The collectives of an update with factors beyond those of any other, and both figures a mean update.

    collectives: by operator how many, and bytes each card gets of them. messages, bytes: those, over `every`.
    """
    more: dict[str, Counter] = {}
    for name, sign in (("factors", 1), ("train", -1)):
        for one in graphs[name]["collectives"]:
            of_operator = more.setdefault(one["operator"], Counter())
            of_operator.update({"count": sign, "bytes": sign * one["bytes"]})
    totals = sum(more.values(), Counter())
    return {
        "every": every,
        "collectives": {operator: dict(figures) for operator, figures in sorted(more.items())},
        "messages": totals["count"] / every,
        "bytes": totals["bytes"] / every,
    }


def faults(graphs: dict[str, Graph], primitives: list[dict[str, Any]]) -> list[str]:
    """A line for each primitive of each graph that is not documented for Ascend."""
    lines = []
    for row in primitives:
        if "Ascend" in row["platforms"]:
            continue
        known = "no platform is documented that we know of; review it in src/analysis/platforms.py"
        if row["platforms"]:
            known = f"documented for {', '.join(row['platforms'])}, not for Ascend, by {row['where']}"
        for name, graph in graphs.items():
            scopes = [node.scope for node in graph.nodes if node.primitive == row["primitive"]]
            if scopes:
                times = f" and {len(scopes) - 1} more" if len(scopes) > 1 else ""
                lines.append(f"{row['primitive']} in the {name} graph, at {scopes[0]}{times}: {known}")
    return lines


def _size(number: float) -> str:
    unit = 0
    while number >= 1024 and unit < len(_UNITS) - 1:
        number, unit = number / 1024, unit + 1
    return f"{number:.4g} {_UNITS[unit]}"


def _sent(collectives: list[dict[str, Any]]) -> list[str]:
    """Collectives of the same size together, the largest first."""
    sizes = Counter((entry["bytes"], entry["operator"], entry["nodes"]) for entry in collectives)
    return [
        f"{operator} {_size(size)}" + (f" of {nodes} nodes" if nodes > 1 else "") + f" x {count}"
        for (size, operator, nodes), count in sorted(sizes.items(), reverse=True)
    ]


def _beyond_train(added: dict[str, Any]) -> str:
    each = [
        f"{operator} x {one['count']}, {_size(one['bytes'])}"
        for operator, one in added["collectives"].items()
    ]
    return (
        f"factors, in 1 update of {added['every']}: {'; '.join(each) or 'nothing'} more than train; "
        f"in a mean update {added['messages']:.3g} messages, {_size(added['bytes'])}"
    )


def as_text(found: dict[str, Any]) -> str:
    """The report as two tables; casts and collectives, of which there are many kinds, as lines."""
    names = list(found["graphs"])
    text = [f"{'':<26}" + "".join(f"{name:>12}" for name in names)]
    rows = {
        "operators": lambda graph: str(graph["operators"]),
        "structural nodes": lambda graph: str(graph["structural"]),
        "parameters": lambda graph: _size(graph["parameters"]),
        "from the host a call": lambda graph: _size(graph["from_host"]),
        "to the host a call": lambda graph: _size(graph["to_host"]),
        "casts": lambda graph: str(sum(cast["count"] for cast in graph["casts"])),
        "transposes": lambda graph: str(graph["transposes"]["count"]),
        "transposed": lambda graph: _size(graph["transposes"]["bytes"]),
        "collectives": lambda graph: str(len(graph["collectives"])),
        "sent between cards": lambda graph: _size(sum(one["bytes"] for one in graph["collectives"])),
    }
    for title, value in rows.items():
        text.append(f"{title:<26}" + "".join(f"{value(graph):>12}" for graph in found["graphs"].values()))
    for name, graph in found["graphs"].items():
        text += [
            f"{name}: cast {cast['from']} to {cast['to']} x {cast['count']}, {_size(cast['bytes'])} written"
            for cast in graph["casts"]
        ]
        text += [f"{name}: {line}" for line in _sent(graph["collectives"])]
    if "factors" in found:
        text.append(_beyond_train(found["factors"]))
    text += ["", f"{'primitive':<26}" + "".join(f"{name:>8}" for name in names) + "  documented for"]
    for row in found["primitives"]:
        calls = "".join(f"{row['calls'][name]:>8}" for name in names)
        text.append(
            f"{row['primitive']:<26}{calls}  {' '.join(row['platforms'])} ({row['where'] or 'nowhere'})"
        )
    return "\n".join(text)
