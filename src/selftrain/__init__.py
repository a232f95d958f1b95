"""Self-training for semantic segmentation: rounds of pseudo-labels as files, one node of the graph at a time."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selftrain.label.pseudo_labels import PseudoLabels as PseudoLabels

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`selftrain.PseudoLabels`, imported when it is asked for: every call of Snakemake imports this package."""
    if name == "PseudoLabels":
        from selftrain.label.pseudo_labels import PseudoLabels

        return PseudoLabels
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
