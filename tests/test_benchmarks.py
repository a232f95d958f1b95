"""Every benchmark still runs: what it measures is not looked at here."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from selftrain.confidence import BINS
from selftrain.predict.writer import PredictionWriter

ROOT = Path(__file__).parents[1]
BENCHMARKS = sorted(file.stem for file in (ROOT / "benchmarks").glob("*.py") if "def measure(" in file.read_text())


def run(*arguments):
    command = [sys.executable, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_prints_its_table(name):
    rows = [line for line in run(f"benchmarks/{name}.py", "--quick").splitlines() if line.startswith("|")]
    assert len(rows) > 2 and {row.count(" | ") for row in rows} == {4}


def test_make_bench_runs_all_of_them(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    assert sorted(runpy.run_path(str(ROOT / "benchmarks/__main__.py"))["EACH"]) == BENCHMARKS


@pytest.mark.slow
def test_scale_measures_many_images_and_computes_what_a_round_costs():
    rows = [line for line in run("benchmarks/scale.py", "--quick").splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 6 + 2
    once, twice = (run("benchmarks/scale.py", "--rates", f"predict={rate}", "step=.1") for rate in (100, 200))
    hours = [float(table.split("BDD100K")[1].split("|")[2]) for table in (once, twice)]
    assert hours == pytest.approx([100_000 * 720 * 1280 / 2**19 / rate / 3600 for rate in (100, 200)], rel=0.03)


@pytest.mark.slow
def test_divergence_compares_policies_on_predictions(tmp_path):
    random, classes = np.random.default_rng(0), ("road", "sky", "car")
    known = pd.DataFrame({"class": classes, "share": [0.6, 0.3, 0.1], "mean_size": 0.5, "images": 4})
    known.to_csv(tmp_path / "classes.csv", index=False)
    about = {"names": ["a", "b"], "shapes": [(40, 60)] * 2, "canvas": (40, 60), "classes": classes}
    with PredictionWriter(tmp_path / "shard-0-of-1.h5", **about, attributes={"model": "0f"}) as writer:
        for position in range(2):
            bins = random.integers(0, BINS, (40, 60)).astype(np.uint16)
            writer.write(position, random.choice(3, (40, 60), p=[0.5, 0.3, 0.2]).astype(np.uint8), bins)
    table = run("benchmarks/divergence.py", tmp_path, tmp_path / "classes.csv")
    assert all(table.count(f" {policy} ") == 2 for policy in ("st", "cbst", "da", "dars"))
