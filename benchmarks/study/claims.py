"""What the papers claim, as pairs of rows of the study, and what the measured rows say of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

SURE = 0.95
"""Of a one-sided t-test over pairs of rows, one per seed, that share all but what the claim is about."""


@dataclass(frozen=True)
class Claim:
    """That one experiment is better than another.

    Attributes:
        better: the experiment that should be.
        worse: the other.
        source: where it is claimed.
        published: the difference there, in points of mIoU.
        column: of the file, in which they are compared.
        sign: -1 where less is better.
    """

    better: str
    worse: str
    source: str
    published: float | None = None
    column: str = "test_miou"
    sign: int = 1


CLAIMS = (
    # What all of it is for: more than as many further steps on the labels alone.
    *(Claim(method, "labels-only", "each paper") for method in ("cbst", "dars", "mlsl", "classmix", "dacs")),
    *(Claim(method, "labels-only", "ours") for method in ("intramix", "dacs-joint")),
    Claim("curriculum", "two-branches-labels-only", "each paper"),
    *(Claim(f"{method}-longer", "labels-only-longer", "each paper") for method in ("cbst", "dars", "classmix", "dacs")),
    Claim("curriculum-longer", "two-branches-labels-only-longer", "each paper"),
    # What the hybrid is for: more than every other method.
    *(
        Claim("hybrid", other, "ours")
        for other in ("labels-only", "cbst", "dars", "dars-sisc", "mlsl", "classmix", "dacs", "curriculum")
    ),
    Claim("dars-sisc", "dars", "ours"),
    Claim("anchors", "dars-sisc", "ours"),
    *(Claim("anchors", f"anchors-{other}", "ours") for other in ("unmixed", "within", "apart")),
    Claim("hybrid", "anchors", "ours", column="val_miou"),  # by which it was decided that rare classes stay
    Claim("hybrid", "anchors", "ours"),
    Claim("dars", "cbst", "DARS Table 4", 2.44),
    Claim("cbst", "st", "DARS Table 4", 0.61),
    Claim("dars", "da", "DARS Table 4"),
    Claim("dars", "da", "DARS section 3.2", column="pseudo_labels_kl", sign=-1),
    Claim("da-log-odds", "da", "ours"),
    Claim("da-log-odds", "da", "ours", column="pseudo_labels_kl", sign=-1),
    Claim("dars", "dars-once", "DARS Table 6", 1.63),
    Claim("dars-larger", "dars-again", "DARS Table 6", 0.66),
    Claim("dars", "dars-larger", "DARS Table 6", 0.71),
    Claim("dars-once", "dars-wider-at-once", "DARS Table 6", 0.47),
    Claim("mlsl", "cbst", "MLSL Table 1", 2.8),
    Claim("mlsl", "cbst", "MLSL section 3.2", column="pseudo_labels_right"),
    Claim("sisc", "cbst", "MLSL Table 1", 2.5),
    Claim("mlsl", "sisc", "MLSL Table 1", 0.3),
    Claim("classmix", "cowmix", "thesis Table 5.1", 0.98),
    Claim("cowmix", "cutmix", "thesis Table 5.1", 1.25),
    Claim("classmix", "cutmix", "thesis Table 5.1", 2.23),
    Claim("cowmix-coarse", "cowmix", "ours"),
    Claim("classmix", "constant-weight", "thesis Table 5.1", 0.77),
    Claim("constant-weight", "pixelwise-threshold", "thesis Table 5.1", 1.97),
    Claim("classmix", "soft-labels", "thesis Table 5.1", 1.20),
    Claim("dacs", "intramix", "thesis Table 5.2", 17.06),
    Claim("dacs-longer", "intramix-longer", "thesis Table 5.2", 17.06),
    Claim("dacs-joint", "dacs", "ours"),
    Claim("self-training", "two-branches", "curriculum Table 1", 3.2),
    Claim("weighted-loss", "self-training", "curriculum Table 1", 2.6),
    Claim("target-easy-mining", "weighted-loss", "curriculum Table 1", 9.1),
    Claim("curriculum", "target-easy-mining", "curriculum Table 1", 1.5),
)


def verdict(differences: np.ndarray) -> str:
    """What differences (n,), one per pair and positive where a claim is right, say of it."""
    count = len(differences)
    if count == 0:
        return "not yet run"
    if count == 1:
        return "one pair"
    error = differences.std(ddof=1) / math.sqrt(count)
    if abs(differences.mean()) <= stats.t.ppf(SURE, count - 1) * error:
        return "within noise"
    return "holds" if differences.mean() > 0 else "does not hold"
