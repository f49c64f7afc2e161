"""Whole models made of the layers."""

from lorentz.models.graph import EuclideanFermiDirac, EuclideanGraphEncoder, GraphEncoder
from lorentz.models.hybonet import EuclideanHyboNet, HyboNet
from lorentz.models.isometric import EuclideanMuRE, LorentzMuRP, LorentzRotH
from lorentz.models.link_loss import (
    draw_negatives,
    negative_sampling_loss,
    radius_penalty,
    sampled_softmax_loss,
    softmax_loss,
)
from lorentz.models.link_scorer import EuclideanScorer, LinkScorer, LorentzScorer

__all__ = [
    "EuclideanFermiDirac",
    "EuclideanGraphEncoder",
    "EuclideanHyboNet",
    "EuclideanMuRE",
    "EuclideanScorer",
    "GraphEncoder",
    "HyboNet",
    "LinkScorer",
    "LorentzMuRP",
    "LorentzRotH",
    "LorentzScorer",
    "draw_negatives",
    "negative_sampling_loss",
    "radius_penalty",
    "sampled_softmax_loss",
    "softmax_loss",
]
