# SPDX-License-Identifier: Apache-2.0
"""MultiGrain as a recipe: repeated augmentation, and a loss of logits and embeddings."""

from mindspore import nn

from ..data.batches import EvalBatches, TrainBatches
from ..optim.groups import ParamRule
from ..recipe import Recipe
from .config import MultiGrainConfig
from .losses import GatherRows, JointLoss, MarginLoss, TripletLoss
from .network import MultiGrain
from .probe import KnnProbe
from .sampling import PairTargets


class MultiGrainRecipe(Recipe):
    """See `Recipe` and configs/multigrain/."""

    config_class = MultiGrainConfig
    network_class = MultiGrain

    def network(self, *, num_classes: int) -> MultiGrain:
        network = super().network(num_classes=num_classes)
        network.training_embedding = self.config.has_pairs
        return network

    def loss(self, *, rank: int = 0, size: int = 1) -> nn.Cell:
        c = self.config
        if not c.has_pairs:
            return super().loss(rank=rank, size=size)
        if c.metric_loss == "margin":
            metric = MarginLoss(
                margin=c.margin,
                beta=c.margin_beta,
                cutoff=c.sampling_cutoff,
                nonzero_loss_cutoff=c.nonzero_loss_cutoff,
            )
        else:
            metric = TripletLoss(margin=c.triplet_margin)
        gather = GatherRows(rank=rank, cards=size) if c.negatives == "global" and size > 1 else None
        return JointLoss(weight=c.classification_weight, metric=metric, gather=gather)

    def train_batches(self, *, rank: int = 0, size: int = 1) -> TrainBatches:
        """The training data of one rank: each image `repetitions` times, with which image it is for pairs."""
        c = self.config
        return super().train_batches(
            rank=rank,
            size=size,
            repetitions=c.repetitions,
            epoch_length=c.epoch_length,
            more_targets=PairTargets(c.negatives == "global") if c.has_pairs else None,
        )

    def monitor(self, network: nn.Cell, inputs: nn.Cell) -> KnnProbe | None:
        """Nearest neighbours on a fixed subset, as the keys of evaluation prepare it, but always squares."""
        c = self.config
        if not c.knn_probe_images:
            return None
        return KnnProbe(
            network,
            inputs,
            bank=self.source("train"),
            queries=self.source("test"),
            images=c.knn_probe_images,
            seed=c.split_seed,
            prepare=lambda source: EvalBatches(
                source,
                self.preparation,
                batch_size=min(c.eval_batch_size, c.knn_probe_images),
                normalised=False,
                workers=c.workers,
            ),
        )

    def param_rules(self) -> list[ParamRule]:
        """As a plain classifier's; p and the margin loss's beta have no decay, beta a rate of its own."""
        c, rules = self.config, super().param_rules()
        if c.learn_pooling_exponent:
            rules = [ParamRule("pooling exponent", r"^pool\.p$", 0.0), *rules]
        if c.has_pairs and c.metric_loss == "margin":
            rules = [ParamRule("margin beta", r"^loss\.beta$", 0.0, c.beta_lr_multiplier), *rules]
        return rules
