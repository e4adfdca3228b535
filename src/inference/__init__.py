"""Trained networks for use: `load(path)` gives a classifier."""

from .classifier import Classifier, build_network, load
from .ensemble import Ensemble

__all__ = ["Classifier", "Ensemble", "build_network", "load"]
