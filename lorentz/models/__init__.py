"""Whole models made of the layers."""

from lorentz.models.graph import EuclideanFermiDirac, EuclideanGraphEncoder, GraphEncoder
from lorentz.models.hybonet import EuclideanHyboNet, HyboNet
from lorentz.models.isometric import EuclideanMuRE, EuclideanRotE, LorentzMuRP, LorentzRotH
from lorentz.models.link_loss import (
    contrastive_loss,
    draw_negatives,
    negative_sampling_loss,
    softmax_loss,
)
from lorentz.models.link_scorer import EuclideanScorer, LinkScorer, LorentzScorer

__all__ = [
    "EuclideanFermiDirac",
    "EuclideanGraphEncoder",
    "EuclideanHyboNet",
    "EuclideanMuRE",
    "EuclideanRotE",
    "EuclideanScorer",
    "GraphEncoder",
    "HyboNet",
    "LinkScorer",
    "LorentzMuRP",
    "LorentzRotH",
    "LorentzScorer",
    "contrastive_loss",
    "draw_negatives",
    "negative_sampling_loss",
    "softmax_loss",
]
