"""Self-training for semantic segmentation: rounds of pseudo-labels as files, one node of the graph at a time."""

__version__ = "0.1.0"
