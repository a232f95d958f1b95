"""Does it work? The study on real images: measure rows of it, list what is missing, print its tables.

    python benchmarks/study                  # run what is missing, the most important first; kill it at any time
    python benchmarks/study --minutes 60     # begin no row after an hour
    python benchmarks/study --list           # what is missing, in this order
    python benchmarks/study --over mine.yaml # with what a file says over all configs, such as data_root and weights
    python benchmarks/study --tables         # the tables of docs/results.md; --update writes them there

Each row is appended to docs/data/study.csv as soon as it is measured, on whatever machine. results/study keeps models
and predictions that rows share; without it they are made again. Snakemake is not needed.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import tables
from rows import Row, append, missing, planned, read

from selftrain import artifacts, locks
from selftrain.errors import UserError

ROOT = Path(__file__).parents[2]
CONFIGS = [ROOT / f"configs/benchmark/{name}.yaml" for name in ("headline", "hybrid", "ablation", "longer")]
CSV, PAGE = ROOT / "docs/data/study.csv", ROOT / "docs/results.md"

log = logging.getLogger("study")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--configs", type=Path, nargs="+", default=CONFIGS, help="config files, the most important first"
    )
    parser.add_argument("--over", type=Path, nargs="*", default=[], help="config files whose values go over all others")
    parser.add_argument("--csv", type=Path, default=CSV, help="the file of measured rows")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no row after so many")
    parser.add_argument("--only", default="", help="rows whose name has this text, such as 'dars seed 0'")
    parser.add_argument("--list", action="store_true", help="print what is missing, and run nothing")
    parser.add_argument("--tables", action="store_true", help="print the tables, and run nothing")
    parser.add_argument(
        "--update", action="store_true", help=f"write tables and figures into {PAGE.name}, and run nothing"
    )
    told = parser.parse_args(arguments)
    rows = planned(told.configs, told.over)
    if told.tables or told.update:
        text = tables.text(rows, read(told.csv))
        if told.update:
            artifacts.write_text(PAGE, tables.put_into(PAGE.read_text(), text))
            for name, figure in tables.figures(rows, read(told.csv)).items():
                artifacts.write_text(PAGE.parent / "images" / name, figure)
        else:
            print(text)
        return 0
    left = [row for row in missing(rows, read(told.csv)) if told.only in row.name]
    if told.list:
        print(*(f"{row.digest} {row.name}" for row in left), sep="\n")
        print(f"{len(left)} of {len(rows)} rows are missing", file=sys.stderr)
        return 0
    return run(left, told.csv, minutes=told.minutes)


def run(rows: Sequence[Row], file: Path, *, minutes: float = float("inf")) -> int:
    """Measure rows and append each to the file; returns how many failed, which the next run tries again.

    Raises:
        UserError: data or weights are not where the configs say.
    """
    started, failed = time.monotonic(), 0
    for graph in {id(row.graph): row.graph for row in rows}.values():
        graph.check_files()
    for row in rows:
        if time.monotonic() - started > 60 * minutes:
            log.info("%g minutes are over", minutes)
            break
        # Two studies in one folder would make the same models.
        with locks.alone(Path(row.graph.config.results, ".study.lock"), "the study"):
            if row.digest in set(read(file).digest):
                continue
            log.info("%s: begins", row.name)
            try:
                measured = row.measure()
            except UserError as error:
                log.error("%s: failed: %s", row.name, error)
                failed += 1
                continue
            append(file, measured)
            log.info("%s: test mIoU %.4f, %s CPU-minutes", row.name, measured["test_miou"], measured["cpu_minutes"])
    return failed


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    try:
        sys.exit(min(1, main()))
    except UserError as error:
        sys.exit(f"error: {error}")
