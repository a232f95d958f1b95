"""KL(prior || pseudo-label shares) of every policy on predictions that a run left (DARS Table 5).

    python benchmarks/divergence.py results/synthetic-to-real/pretrained/supervised/seed-0/predictions/single \
        results/synthetic-to-real/data/labeled/classes.csv --portion .2

Each policy runs at full resolution and at float16's; the labels are really made, random draws included. `ties` is the
share of all pixels whose confidence is that of their class's threshold, which is what ties decide.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from selftrain import draws
from selftrain.confidence import BINS, groups
from selftrain.data.tables import read_classes
from selftrain.label.stage import Rule
from selftrain.predict.store import Predictions, read_histograms
from selftrain.registry import POLICIES
from selftrain.select.cut import Cut, kl_divergence
from selftrain.select.policies import decide
from selftrain.select.stage import describe
from selftrain.settings.selection import SelectSettings


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("predictions", type=Path, help="a folder of shards")
    parser.add_argument("classes", type=Path, help="classes.csv of the labeled split")
    parser.add_argument("--portion", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=0)
    told = parser.parse_args(arguments)
    shards = sorted(told.predictions.glob("*.h5"), key=lambda path: int(path.stem.split("-")[1]))
    with Predictions(shards[0]) as first:
        classes = tuple(json.loads(first.attributes["classes"]))
    histograms, known = read_histograms(shards, classes), read_classes(told.classes, classes)
    prior = known.share.to_numpy()
    rows = []
    for name in POLICIES:
        for resolution in (None, "float16"):
            policy = {"name": name, "resolution": resolution}
            settings = SelectSettings.model_validate({"classes": classes, "policy": policy, "portion": told.portion})
            cut = decide(settings, histograms, prior)
            counts = labeled(shards, describe(known, histograms, cut), told.seed)
            divergence, left_out = kl_divergence(prior, counts, classes)
            rows.append(
                {
                    "policy": name,
                    "resolution": resolution or "full",
                    "labeled": counts.sum() / histograms.sum(),
                    "KL": f"{divergence:.3g}",
                    "ties": ties(cut, histograms, resolution),
                    "left out": ", ".join(left_out),
                }
            )
    print(f"portion {told.portion}, seed {told.seed}, {histograms.sum()} pixels")
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.5f}".format))


def labeled(shards: list[Path], cut: pd.DataFrame, seed: int) -> np.ndarray:
    """Pixels of each class that the label stage keeps."""
    rule, counts = Rule.of(cut), np.zeros(256, np.int64)
    for path in shards:
        with Predictions(path) as shard:
            for position, image in enumerate(shard.images):
                labels = rule.apply(*shard.read(position), draws.image_key(seed, 1, image))
                counts += np.bincount(labels.ravel(), minlength=256)
    return counts[: len(cut)]


def ties(cut: Cut, histograms: np.ndarray, resolution: str | None) -> float:
    """The share of all pixels in the group of equal confidence at their class's threshold."""
    group = groups(resolution)
    used = cut.threshold < BINS
    at_threshold = [histograms[c, group == group[t]].sum() for c, t in enumerate(cut.threshold) if used[c]]
    return sum(at_threshold) / max(1, histograms.sum())


if __name__ == "__main__":
    main()
