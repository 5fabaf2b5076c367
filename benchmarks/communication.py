# SPDX-License-Identifier: Apache-2.0
"""What do cards tell each other in a training step, and how long does that take?

    python -m benchmarks.communication

Derived, not measured: the bytes and buckets are those of the gradients that the train step would exchange
(src/parallel/buckets.py), the times follow from the bandwidths below, without overlap. Builds the four
networks (BiT R101x3 needs 2 GiB). Writes benchmarks/records/communication.json, from which
docs/scaling.md has its table.

Each of n cards in a ring sends 2 (n - 1) / n of the bytes that are averaged. Between servers, each card has
the ring over the servers for its eighth of them (hierarchical all-reduce).
"""

import math

from benchmarks.record import RECORDS, ROOT, end_with, parser, write_record

CARDS_A_SERVER = 8
# Liao et al., "Ascend: a Scalable and Unified Architecture for Ubiquitous Deep Neural Network Computing",
# HPCA 2021: one HCCS link between cards, and 100 Gbit/s of a card to other servers.
HCCS, NETWORK = 30e9, 12.5e9  # bytes/s, each way

# Recipe, classes, images a card, and the milliseconds a step takes by who says so.
CLAIMS = {
    "bit/r101x3_cifar10_randaug.yaml": (10, 64, 949, "an earlier port, 8 Ascend 910"),
    "bireal/birealnet34_port.yaml": (1000, 128, 177.4, "an earlier port, 8 Ascend 910"),
    "multigrain/resnet50_imagenet.yaml": (1000, 30, 156, "an earlier port, 8 Ascend 910, from its hours"),
    "resnet9/cifar10.yaml": (10, 512, 34, "cifar10-fast, one V100, from its seconds"),
}


def exchanged(config_name: str, num_classes: int) -> dict:
    """Bytes and buckets of a recipe's step on several cards."""
    from src.model_utils.config import load_config
    from src.parallel.buckets import plan_buckets
    from src.zoo import config_class_of, create_recipe

    config = load_config({}, config_class_of=config_class_of, config_path=ROOT / "configs" / config_name)
    recipe = create_recipe(config)
    network = recipe.network(num_classes=num_classes)
    sizes = [parameter.size for parameter in recipe.optimizer(network, recipe.loss()).parameters]
    statistics = [p.size for p in network.get_parameters() if "moving_" in p.name]
    buckets = plan_buckets(sizes, int(config.bucket_mib * 2**18))
    return {
        "model": config.model,
        "gradient_bytes": 4 * sum(sizes),
        "buckets": len(buckets),
        "largest_bucket_bytes": 4 * max(sum(sizes[i] for i in bucket) for bucket in buckets),
        "statistics_bytes": 4 * (1 + sum(statistics)),
    }


def milliseconds(count: float, cards: int) -> float:
    """Of averaging `count` bytes over cards of full servers."""
    servers = math.ceil(cards / CARDS_A_SERVER)
    inside = ring_share(CARDS_A_SERVER) * count / HCCS
    between = ring_share(servers) * count / CARDS_A_SERVER / NETWORK
    return 1000 * (inside + between)


def ring_share(members: int) -> float:
    return 2 * (members - 1) / members


def main() -> int:
    parser(__doc__).parse_args()

    from src.model_utils.device_adapter import set_up_device

    set_up_device("CPU")
    rows = []
    for name, (num_classes, batch_size, step, source) in CLAIMS.items():
        row = {"config": name, **exchanged(name, num_classes), "images_a_card": batch_size}
        total = row["gradient_bytes"] + row["statistics_bytes"]
        row |= {"step_ms": step, "step_source": source}
        for cards in (8, 64):
            spent = milliseconds(total, cards)
            row[f"{cards}_cards"] = {
                "sent_bytes_a_card": round(ring_share(cards) * total),
                "milliseconds": round(spent, 2),
                "percent_of_step": round(100 * spent / step, 1),
            }
        rows.append(row)
        print(row)
    write_record(
        RECORDS / "communication.json",
        question="bytes and time of the messages of one training step, derived from the gradients' sizes",
        command="python -m benchmarks.communication",
        bytes_per_second={"between cards of a server": HCCS, "of a card to other servers": NETWORK},
        rows=rows,
    )
    return 0


if __name__ == "__main__":
    end_with(main)
