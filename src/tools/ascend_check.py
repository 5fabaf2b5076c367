"""Whether an Ascend card can run a config, by MindSpore's documentation; without a card and without data.

python -m src.tools.ascend_check configs/resnet9/cifar10.yaml
python -m src.tools.ascend_check configs/bit/r101x3_cifar10.yaml --batch_size 32 --cards 64 --json

Compiles the train step, the evaluation and the exported network as a card gets them, runs nothing, and lists
every primitive with the platforms that are documented for it. Exit code 2 and a line for each one that is not
documented for Ascend. The figures are those of the graphs before Ascend's own optimisations: what it fuses,
and where it changes layouts, is known only to a card. Every other --key value is a config key.
"""

import sys
from collections import Counter

from ..common.cli import parser, run
from ..key_help import key_help

_UNITS = ("B", "KiB", "MiB", "GiB")


def report(graphs: dict) -> dict:
    """Facts of each graph, and of each primitive its calls in each, its platforms, and where that is from."""
    from ..analysis.graph_facts import STRUCTURAL, facts
    from ..analysis.platforms import documentation

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
    return {"graphs": {name: facts(graph) for name, graph in graphs.items()}, "primitives": primitives}


def faults(graphs: dict, primitives: list[dict]) -> list[str]:
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


def _sent(collectives: list[dict]) -> list[str]:
    """Collectives of the same size together, the largest first."""
    sizes = Counter((entry["bytes"], entry["operator"], entry["nodes"]) for entry in collectives)
    return [
        f"{operator} {_size(size)}" + (f" of {nodes} nodes" if nodes > 1 else "") + f" x {count}"
        for (size, operator, nodes), count in sorted(sizes.items(), reverse=True)
    ]


def as_text(found: dict) -> str:
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
    text += ["", f"{'primitive':<26}" + "".join(f"{name:>8}" for name in names) + "  documented for"]
    for row in found["primitives"]:
        calls = "".join(f"{row['calls'][name]:>8}" for name in names)
        text.append(
            f"{row['primitive']:<26}{calls}  {' '.join(row['platforms'])} ({row['where'] or 'nowhere'})"
        )
    return "\n".join(text)


def main(arguments):
    flags = parser(__doc__, keys=key_help)
    flags.usage = "python -m src.tools.ascend_check CONFIG [flags] [--key value ...]"
    flags.add_argument("config", metavar="CONFIG", help="a recipe of configs/; comes first")
    flags.add_argument("--num_classes", type=int, default=10, help="classes of the data (10)")
    flags.add_argument("--images", type=int, default=50_000, help="training images of the data (50000)")
    flags.add_argument("--picture_size", type=int, default=32, help="sides of its pictures, pixels (32)")
    flags.add_argument("--cards", type=int, default=8, help="that train together (8)")
    flags.add_argument("--json", action="store_true", help="one JSON object on the last line, sizes in bytes")
    own, rest = flags.parse_known_args(arguments)

    import mindspore as ms

    from ..analysis.card_graphs import card_graphs
    from ..common.errors import UserError
    from ..common.files import to_json
    from ..common.log import setup_logging
    from ..model_utils.config import load_config, parse_overrides
    from ..model_utils.device_adapter import set_up_device
    from ..zoo import config_class_of, create_recipe

    sizes = {name: getattr(own, name) for name in ("num_classes", "images", "picture_size", "cards")}
    for name, value in sizes.items():
        if value < 1:
            raise UserError(f"{name}: {value} given, allowed: a whole number >= 1")
    config = load_config(parse_overrides(rest), config_class_of=config_class_of, config_path=own.config)
    setup_logging(None).setLevel("ERROR")
    set_up_device("CPU", seed=config.seed)
    graphs = card_graphs(create_recipe(config), **sizes)
    found = report(graphs)
    lines = faults(graphs, found["primitives"])
    print(f"{config.model} ({own.config}) on {own.cards} Ascend cards, MindSpore {ms.__version__}")
    print(as_text(found))
    if not lines:
        print(f"all {len(found['primitives'])} primitives are documented for Ascend")
    if own.json:
        print(to_json({"config": own.config, "model": config.model, **sizes, **found, "faults": lines}))
    for line in lines:
        print(f"error: {line}", file=sys.stderr)
    return 2 if lines else 0


if __name__ == "__main__":
    run(main)
