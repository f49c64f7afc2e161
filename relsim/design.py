"""What a comparison computes once for all pairs: the head conditionals, and the sample of heads for the tail part."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from relsim.distribution import FactDistribution
from relsim.heads import HeadProbability, HeadSample, all_heads, heads_holding, sample_heads


@dataclass(frozen=True)
class Design:
    """The head conditionals of R relations as an exponential family, and H heads at which to evaluate the tails.

    Attributes:
        relations: (R,) int64, their indices in the model.
        natural: (R, k), partition: (R,), mean: (R, k): of p(h | r).
        sample: heads and weights.
    """

    relations: Tensor
    natural: Tensor
    partition: Tensor
    mean: Tensor
    sample: HeadSample

    def head_part(self, sources: slice = slice(None), targets: slice = slice(None)) -> Tensor:
        """Return KL(p(h|a) || p(h|b)), float64, for slices of the relations: exact, a lower bound on KL(a || b)."""
        a = self.natural[None, sources], self.partition[None, sources], self.mean[None, sources]
        return bregman(*a, self.natural[None, targets], self.partition[None, targets])[0].double()

    def tensors(self) -> dict[str, Tensor]:
        """Return all fields as one flat dictionary, for a safetensors file."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "sample"}
        return own | {f"sample.{f.name}": getattr(self.sample, f.name) for f in fields(HeadSample)}

    @classmethod
    def of_tensors(cls, tensors: dict[str, Tensor]) -> Design:
        """Undo `tensors`."""
        sample = HeadSample(**{f.name: tensors[f"sample.{f.name}"] for f in fields(HeadSample)})
        return cls(**{f.name: tensors[f.name] for f in fields(cls) if f.name != "sample"}, sample=sample)

    def to(self, device: torch.device) -> Design:
        """Return the design with its tensors on a device."""
        return Design.of_tensors({name: value.to(device) for name, value in self.tensors().items()})

    def fits(self, relations: int, entities: int) -> bool:
        """Whether this could be a design of all relations of a model: shapes, types and ranges, not the figures."""
        sample = self.sample
        size, width, features = len(sample.heads), self.natural.shape[-1], sample.features.shape[-1]
        sampled = features and size  # without features nothing is sampled
        shapes = {
            "relations": (relations,),
            "natural": (relations, width),
            "partition": (relations,),
            "mean": (relations, width),
            "sample.heads": (size,),
            "sample.active": (size, relations),
            "sample.weight": (size, relations),
            "sample.features": (size, features),
            "sample.fit": (size, relations if sampled else 0),
            "sample.bread": (relations, features, features),
            "sample.noise": (size, relations if sampled else 0),
            "sample.freedom": (relations,),
        }
        tensors = self.tensors()
        whole = {"relations": torch.int64, "sample.heads": torch.int64, "sample.active": torch.bool}
        return (
            all(tuple(tensors[name].shape) == shape for name, shape in shapes.items())
            and all(tensors[name].dtype == dtype for name, dtype in whole.items())
            and all(v.is_floating_point() and _finite(v) for n, v in tensors.items() if n not in whole)
            and torch.equal(self.relations.cpu(), torch.arange(relations))
            and 0 < size <= entities
            and bool((sample.heads.diff() > 0).all())
            and 0 <= int(sample.heads[0])
            and int(sample.heads[-1]) < entities
            and bool((sample.weight >= 0).all() and (sample.noise >= 0).all())
        )


def _finite(values: Tensor) -> bool:
    """Whether all are: least and largest are found in one pass, and are no numbers where one is none."""
    return values.numel() == 0 or all(bool(extreme.isfinite()) for extreme in values.aminmax())


def exact_design(model: FactDistribution, relations: Tensor) -> Design:
    """Return the design that takes every head."""
    natural, partition, mean = _heads(model, relations)
    return Design(relations, natural, partition, mean, all_heads(_probability(model, natural, partition)))


def sampled_design(
    model: FactDistribution, relations: Tensor, *, mass: float, samples: int, features: int, seed: int
) -> Design:
    """Return the design of `RaoBlackwell`, whose arguments these are; it depends on nothing else."""
    natural, partition, mean = _heads(model, relations)
    probability = _probability(model, natural, partition)
    size = heads_holding(probability, mass, min(samples, probability.entities))
    if size == probability.entities:
        return Design(relations, natural, partition, mean, all_heads(probability))
    known = model.head_features(relations, min(features, size // 20, len(relations) - 1))
    sample = sample_heads(probability, size, known, np.random.default_rng(seed))
    return Design(relations, natural, partition, mean, sample)


def bregman(
    natural: Tensor, partition: Tensor, mean: Tensor, other: Tensor | None = None, other_partition: Tensor | None = None
) -> Tensor:
    """Return KL(p_u || p_w) = Z(w) - Z(u) - (w - u) . m(u) for all pairs of each batch; w among the u where not given.

    Shapes: natural and mean (B, A, k), partition (B, A), other (B, C, k), other_partition (B, C); the result is
    (B, A, C), row u, column w.
    """
    if other is None or other_partition is None:
        other, other_partition = natural, partition
    own = partition - (mean * natural).sum(dim=-1)
    return torch.baddbmm(other_partition[:, None, :] - own[:, :, None], mean, other.mT, alpha=-1)


def _heads(model: FactDistribution, relations: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    natural = model.head_natural(relations)
    return natural, *model.head_moments(natural)


def _probability(model: FactDistribution, natural: Tensor, partition: Tensor) -> HeadProbability:
    def tile(relations: slice, heads: slice) -> Tensor:
        return model.head_logits(natural[relations], heads).sub_(partition[relations, None]).exp_()

    return HeadProbability(tile, len(natural), len(model.entities))
