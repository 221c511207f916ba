"""Shards of samples -> batches: which samples, in which order, and what training makes of them."""

from model.data.samples import Samples

__all__ = ["Samples"]
