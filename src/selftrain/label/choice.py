"""The choose stage: CBST's class-normalized choice, which needs a second forward pass since its thresholds are new."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from selftrain.confidence import BINS, probability_of
from selftrain.predict.stage import predict_shard
from selftrain.select.cut import read_cut
from selftrain.settings.prediction import PredictStageSettings


def choose(
    settings: PredictStageSettings,
    model: Path,
    images: Path,
    cut: Path,
    output: Path,
    *,
    statistics: Path | None = None,
    calibrator: Path | None = None,
    threads: int = 1,
) -> None:
    """Predict a shard again, each pixel's class being the one with the highest p_c / t_c.

    Its confidence is that class's own log-odds, so p_c / t_c >= 1 says the same as reaching the class's threshold, and
    the label stage applies the cut as ever. A class of which the cut keeps nothing is never chosen.

    Args:
        settings: as the predictions were made with that the cut comes from.
        model: the model that made them.
        images: images.csv of the unlabeled split.
        cut: the table that select wrote.
        output: a shard of predictions.
        statistics: statistics.h5 of the labeled split, where there is a spatial prior.
        calibrator: calibrator.json of the model, where predictions are calibrated.
        threads: CPU threads.
    """
    bins = read_cut(cut, settings.read.classes)["threshold_bin"].to_numpy()
    thresholds = np.where(bins < BINS, probability_of(bins), np.inf).tolist()
    of_model = {"statistics": statistics, "calibrator": calibrator}
    predict_shard(settings, model, images, output, **of_model, thresholds=thresholds, threads=threads)
