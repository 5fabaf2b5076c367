# SPDX-License-Identifier: Apache-2.0
"""Are the negatives of the margin loss drawn faster inside the graph, or on the host?

    python -m benchmarks.negative_sampling [--turns 15]

Whole training steps of configs/multigrain/tiny_imagenet.yaml on random pictures, float32, on the CPU. The
host needs embeddings before the step: a forward pass in training mode (which leaves the running statistics as
they were), numpy's draw from the same noise, and a step that is handed the indices. Two networks that start
equal take turns, step by step, with the same pictures and noise. Beside it the loss alone with its gradient,
for 512 embeddings of 2,048 numbers, where the host saves itself the forward pass. All negatives and the
losses of both ways are compared. Writes benchmarks/records/negative_sampling.json.
"""

import time

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from benchmarks.record import RECORDS, ROOT, end_with, parser, spread, write_record
from benchmarks.steps import ratios, report, take_turns
from src.data.order import Order
from src.layers.gem import l2_normalise
from src.model_utils.config import load_config
from src.model_utils.device_adapter import set_up_device
from src.multigrain import losses
from src.multigrain.losses import MarginLoss, hinges
from src.multigrain.sampling import (
    CUTOFF,
    NONZERO_LOSS_CUTOFF,
    PairTargets,
    choose_negatives,
    log_weights,
)
from src.multigrain.sampling import squared_distances as squared_distances_of
from src.training.build import build_train_step
from src.zoo import config_class_of, create_recipe

REPETITIONS = 3


class GivenNegatives(MarginLoss):
    """The margin loss with indices of negatives, (B, B) int32, -1 where there is none, in place of noise."""

    def construct(self, embeddings, instances, chosen):
        squared = squared_distances_of(l2_normalise(embeddings))
        positives = losses._pairs(instances)[1]
        counted = ops.logical_and(positives, chosen >= 0).astype(ms.float32)
        distances = ops.sqrt(squared + 1e-8)
        negatives = ops.gather_elements(distances, 1, ops.maximum(chosen, 0))
        return hinges(distances, negatives, self.beta, self.margin, counted)


class Drawn(nn.Cell):
    """What `MarginLoss` draws inside the graph, to compare with the host's."""

    def construct(self, embeddings, instances, noise):
        unit = l2_normalise(embeddings)
        same, positives = losses._pairs(instances)
        squared = squared_distances_of(unit)
        weights, eligible = log_weights(squared, same, unit.shape[1], CUTOFF, NONZERO_LOSS_CUTOFF)
        return choose_negatives(weights, eligible, positives, noise), positives


def draw_on_host(embeddings: np.ndarray, instances: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """The same in numpy: (B, D), (B,), (B, B) -> (B, B) int32, -1 where a row has no negative."""
    unit = embeddings / (np.linalg.norm(embeddings, axis=1, keepdims=True) + 1e-6)
    products = unit @ unit.T
    squares = np.square(unit).sum(axis=1)
    squared = np.maximum(squares[:, None] + squares[None] - 2 * products, 0)
    same = instances[:, None] == instances[None]
    distance = np.maximum(np.sqrt(squared + 1e-12), CUTOFF)
    rest = np.maximum(1 - 0.25 * np.square(distance), 1e-8)
    dimension = unit.shape[1]
    weights = (2.0 - dimension) * np.log(distance) - 0.5 * (dimension - 3.0) * np.log(rest)
    near = ~same & (distance < NONZERO_LOSS_CUTOFF)
    none = ~near.any(axis=1, keepdims=True)
    eligible = near | (none & ~same)
    scores = np.where(eligible, np.where(none, 0, weights) + noise, -1e30)
    order = np.argsort(-scores, axis=1)
    pairs = same & ~np.eye(len(same), dtype=bool)
    counts = eligible.sum(axis=1, keepdims=True)
    turn = np.maximum(np.cumsum(pairs, axis=1) - 1, 0) % np.maximum(counts, 1)
    return np.where(counts > 0, np.take_along_axis(order, turn, axis=1), -1).astype(np.int32)


class Timed:
    """Stands for a peer of `take_turns`: makes the next step and keeps its loss."""

    def __init__(self, make_step):
        self.make_step, self.losses = make_step, []

    def step(self) -> float:
        began = time.perf_counter()
        self.losses.append(self.make_step(len(self.losses)))
        return time.perf_counter() - began


def numbers_of(number: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """What the noise of a step is made of: numbers and starts, see `sampling.noise_rows`."""
    step = Order(rows, batch_size=rows, seed=0).step(number, 0)
    return PairTargets(everywhere=True)(step)[1:]


def noise_of(number: int, rows: int) -> np.ndarray:
    numbers, starts = numbers_of(number, rows)
    return numbers[starts[:, None] + np.arange(rows)]


class Embeddings(nn.Cell):
    """A forward pass in training mode that leaves the running statistics as they were."""

    def __init__(self, network: nn.Cell):
        super().__init__(auto_prefix=False)
        self.network = network
        kept = [p for p in network.get_parameters() if p.name.endswith(("moving_mean", "moving_variance"))]
        self.statistics = ms.ParameterTuple(kept)

    def construct(self, images):
        before = tuple([statistic * 1.0 for statistic in self.statistics])
        embeddings = self.network.embed(images)
        for statistic, value in zip(self.statistics, before):
            embeddings = ops.depend(embeddings, ops.assign(statistic, ops.depend(value, embeddings)))
        return embeddings


def whole_steps(recipe, rows: int) -> tuple[dict[str, Timed], dict[str, nn.Cell]]:
    """Both ways to make a training step."""
    rng = np.random.default_rng(0)
    side, c = recipe.image_size, recipe.config
    images = ms.Tensor(rng.standard_normal((rows, 3, side, side)).astype(np.float32))
    instances = np.repeat(np.arange(rows // REPETITIONS), REPETITIONS).astype(np.int32)
    classes = ms.Tensor((instances % 40).astype(np.int32))
    rows_of = ms.Tensor(instances)
    every_row = ms.Tensor(np.arange(rows, dtype=np.int32) * rows)  # of a matrix that is handed over flat
    networks, steps = {}, {}
    for name in ("graph", "host"):
        networks[name] = recipe.network(num_classes=40)
        steps[name] = build_train_step(recipe, networks[name], steps=1000, steps_per_epoch=208, cards=1)
        if name == "host":
            own = steps[name].loss.metric
            steps[name].loss.metric = GivenNegatives(margin=c.margin, beta=c.margin_beta)
            steps[name].loss.metric.beta = own.beta  # which the optimizer trains
    forward = Embeddings(networks["host"]).set_train(True)

    def in_graph(number):
        noise = map(ms.Tensor, numbers_of(number, rows))
        return float(steps["graph"](images, ms.mutable((classes, rows_of, *noise)))[0].asnumpy())

    def on_host(number):
        noise = noise_of(number, rows)
        chosen = ms.Tensor(draw_on_host(forward(images).asnumpy(), instances, noise).ravel())
        return float(steps["host"](images, ms.mutable((classes, rows_of, chosen, every_row)))[0].asnumpy())

    return {"graph": Timed(in_graph), "host": Timed(on_host)}, networks


def loss_alone(rows: int, dimension: int) -> dict[str, Timed]:
    """Both ways from embeddings to the loss and its gradient."""
    rng = np.random.default_rng(1)
    instances = np.repeat(np.arange(rows), REPETITIONS)[:rows].astype(np.int32)
    centres = rng.standard_normal((rows, dimension))[instances] + 2 * rng.standard_normal(dimension)
    given = ms.Tensor((centres + 0.5 * rng.standard_normal((rows, dimension))).astype(np.float32))
    rows_of = ms.Tensor(instances)
    graph, host = ms.value_and_grad(MarginLoss(), 0), ms.value_and_grad(GivenNegatives(), 0)

    def settled(answer):
        answer[1].asnumpy()
        return float(answer[0].asnumpy())

    def in_graph(number):
        return settled(graph(given, rows_of, ms.Tensor(noise_of(number, rows))))

    def on_host(number):
        chosen = draw_on_host(given.asnumpy(), instances, noise_of(number, rows))
        return settled(host(given, rows_of, ms.Tensor(chosen)))

    return {"graph": Timed(in_graph), "host": Timed(on_host)}


def equal_negatives(rows: int, dimension: int) -> dict[str, int]:
    """Pairs of anchor and positive, and of how many the negative is the same."""
    rng = np.random.default_rng(2)
    instances = np.repeat(np.arange(rows), REPETITIONS)[:rows].astype(np.int32)
    embeddings = np.abs(rng.standard_normal((rows, dimension))).astype(np.float32)
    noise = noise_of(0, rows)
    chosen, positives = (t.asnumpy() for t in Drawn()(*map(ms.Tensor, (embeddings, instances, noise))))
    same = draw_on_host(embeddings, instances, noise) == chosen
    return {"pairs": int(positives.sum()), "same": int(same[positives].sum())}


def timings(peers: dict[str, Timed], turns: int) -> dict:
    seconds = take_turns(peers, steps=turns)
    ratio = spread(ratios(seconds, "host", "graph"), 3)
    report(seconds, {"graph": ratio})
    difference = np.abs(np.subtract(peers["graph"].losses, peers["host"].losses)).max()
    return {
        "milliseconds": {name: spread([1e3 * s for s in values], 1) for name, values in seconds.items()},
        "ratio_host_to_graph": ratio,
        "largest_difference_of_losses": float(f"{difference:.1e}"),
    }


def main() -> int:
    flags = parser(__doc__)
    flags.add_argument("--turns", type=int, default=15, help="counted steps of each (default 15)")
    own = flags.parse_args()
    set_up_device("CPU")
    config = load_config(
        {}, config_class_of=config_class_of, config_path=ROOT / "configs/multigrain/tiny_imagenet.yaml"
    )
    peers, networks = whole_steps(create_recipe(config), config.batch_size)
    step = timings(peers, own.turns)
    arrays = [[p.asnumpy() for p in network.get_parameters()] for network in networks.values()]
    weights = max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in zip(*arrays, strict=True))
    write_record(
        RECORDS / "negative_sampling.json",
        question="seconds of a training step with negatives drawn inside the graph and on the host",
        command="python -m benchmarks.negative_sampling",
        whole_step={
            "batch_size": config.batch_size,
            "embedding": config.widths[-1],
            "negatives": equal_negatives(config.batch_size, config.widths[-1]),
            **step,
            "largest_relative_difference_of_weights_after_all_steps": float(f"{weights:.1e}"),
        },
        loss_alone={
            "batch_size": 512,
            "embedding": 2048,
            "negatives": equal_negatives(512, 2048),
            **timings(loss_alone(512, 2048), own.turns),
        },
    )
    return 0


if __name__ == "__main__":
    end_with(main)
