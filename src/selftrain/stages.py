"""The jobs of the graph as commands, `selftrain stage ...`: Snakemake calls these, with settings in a file."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from pydantic import ValidationError

from selftrain import locks, uncompiled
from selftrain.errors import UserError
from selftrain.settings.base import Settings

app = typer.Typer(no_args_is_help=True)

SettingsFile = Annotated[Path, typer.Option("--settings", help="The stage's settings, a JSON file.")]
Named = Annotated[list[str], typer.Option(help="NAME=FILE, repeatable.")]
Threads = Annotated[int, typer.Option(help="CPU threads.")]
Kind = TypeVar("Kind", bound=Settings)


def _settings(kind: type[Kind], file: Path) -> Kind:
    try:
        return kind.model_validate_json(file.read_text())
    except ValidationError as error:
        first = str(error).splitlines()[1]
        raise UserError(f"{file}: not the settings of this job ({first}, ...); run it by Snakemake") from None


def _named(pairs: list[str]) -> dict[str, Path]:
    return {name: Path(path) for name, _, path in (pair.partition("=") for pair in pairs)}


@app.callback()
def divert(
    context: typer.Context,
    log: Annotated[
        Path | None,
        typer.Option(help="Where all output but warnings and errors goes; two jobs with one never run at once."),
    ] = None,
) -> None:
    """One job of the graph; Snakemake calls these."""
    if log is None:
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    # When Snakemake alone is killed, its jobs work on; what they write must not come after what the next run writes.
    context.with_resource(locks.alone(log.with_name(f".{log.stem}.lock"), "the job"))
    terminal = os.fdopen(os.dup(sys.stderr.fileno()), "w", buffering=1)
    with log.open("w") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    warnings = logging.StreamHandler(terminal)
    warnings.setLevel(logging.WARNING)
    warnings.setFormatter(logging.Formatter(f"%(levelname)s: {log.stem}: %(message)s"))
    logging.getLogger().addHandler(warnings)
    if terminal.isatty():
        place = "/".join(log.with_suffix("").parts[-4:])
        told = logging.StreamHandler(terminal)
        told.setFormatter(logging.Formatter(f"{place}: %(message)s"))
        told.addFilter(lambda record: hasattr(record, "goes_on"))
        logging.getLogger("selftrain.progress").addHandler(told)


@app.command("draw")
def draw(settings: SettingsFile, output: Annotated[Path, typer.Option()]) -> None:
    """Draw images and labels of the built-in data."""
    import shutil

    from selftrain.data.streets import write
    from selftrain.settings.data import StreetsSettings

    told = _settings(StreetsSettings, settings)
    # Snakemake removes it, too, but a job of a killed run may come after that.
    shutil.rmtree(output, ignore_errors=True)
    write(output, domain=told.domain, count=told.count, seed=told.seed, size=told.size)


@app.command("check")
def check_stage(settings: SettingsFile, output: Annotated[Path, typer.Option()]) -> None:
    """Verify every file of a task."""
    from selftrain.data.check import check as check_task
    from selftrain.settings.data import CheckSettings

    check_task(_settings(CheckSettings, settings), output)


@app.command("list")
def list_stage(settings: SettingsFile, output: Annotated[Path, typer.Option()]) -> None:
    """List the images of a split."""
    from selftrain.data.tables import write_images
    from selftrain.settings.data import ListSettings

    write_images(_settings(ListSettings, settings), output)


@app.command("review")
def review_stage(
    settings: SettingsFile,
    images: Annotated[Path, typer.Option(help="images.csv of the unlabeled split.")],
    output: Annotated[Path, typer.Option()],
) -> None:
    """Check what a person says of unlabeled images."""
    from selftrain.data.review import write_review
    from selftrain.settings.data import ReviewSettings

    write_review(_settings(ReviewSettings, settings), images, output)


@app.command("statistics")
def statistics(
    settings: SettingsFile,
    images: Annotated[Path, typer.Option()],
    classes: Annotated[Path, typer.Option()],
    statistics: Annotated[Path, typer.Option()],
) -> None:
    """Compute the statistics of a labeled split."""
    from selftrain.data.tables import write_statistics
    from selftrain.settings.data import ReadSettings

    write_statistics(_settings(ReadSettings, settings), images, classes, statistics)


@app.command("train")
def train_stage(
    settings: SettingsFile,
    machine: Annotated[Path, typer.Option(help="The machine's settings, a JSON file.")],
    resume: Annotated[Path, typer.Option(help="The folder of resume states.")],
    input: Named,
    model: Annotated[Path, typer.Option()],
    table: Annotated[Path, typer.Option()],
    manifest: Annotated[Path, typer.Option()],
    examples: Annotated[Path | None, typer.Option()] = None,
    finished: Annotated[Path | None, typer.Option(help="The folder of results that Snakemake may not know of.")] = None,
    processes: Annotated[int, typer.Option(help="That share each step's batch, a GPU each.")] = 1,
    code: str = "",
) -> None:
    """Train a model."""
    from selftrain.settings.config import MachineSettings
    from selftrain.settings.training import TrainStageSettings
    from selftrain.train.stage import TrainFiles, train

    outputs: dict[str, Any] = {"model": model, "table": table, "manifest": manifest, "examples": examples}
    files = TrainFiles(**outputs, resume=resume, finished=finished, **_named(input))
    told, of_machine = _settings(TrainStageSettings, settings), _settings(MachineSettings, machine)
    train(told, files, of_machine, code, count=max(1, processes))


@app.command("calibrate")
def calibrate_stage(
    settings: SettingsFile,
    model: Annotated[Path, typer.Option()],
    images: Annotated[Path, typer.Option()],
    output: Annotated[Path, typer.Option()],
    threads: Threads = 1,
) -> None:
    """Fit a calibrator of a model on held-out labels."""
    uncompiled.import_networks()
    from selftrain.calibrate.stage import calibrate
    from selftrain.settings.calibration import CalibrateSettings

    calibrate(_settings(CalibrateSettings, settings), model, images, output, threads=threads)


@app.command("reliability")
def reliability_stage(
    settings: SettingsFile,
    model: Annotated[Path, typer.Option()],
    calibrator: Annotated[Path, typer.Option()],
    images: Named,
    reliability: Annotated[Path, typer.Option()],
    calibration: Annotated[Path, typer.Option()],
    threads: Threads = 1,
) -> None:
    """Measure how far a model's probabilities can be trusted, without and with its calibrator."""
    uncompiled.import_networks()
    from selftrain.calibrate.reliability import measure
    from selftrain.settings.prediction import ReliabilitySettings

    told = _settings(ReliabilitySettings, settings)
    measure(told, model, calibrator, _named(images), reliability, calibration, threads=threads)


@app.command("predict")
def predict_stage(
    settings: SettingsFile,
    model: Annotated[Path, typer.Option()],
    images: Annotated[Path, typer.Option()],
    output: Annotated[Path, typer.Option()],
    statistics: Annotated[Path | None, typer.Option()] = None,
    calibrator: Annotated[Path | None, typer.Option()] = None,
    threads: Threads = 1,
) -> None:
    """Predict one shard of the unlabeled images."""
    uncompiled.import_networks()
    from selftrain.predict.stage import predict_shard
    from selftrain.settings.prediction import PredictStageSettings

    told = _settings(PredictStageSettings, settings)
    predict_shard(told, model, images, output, statistics=statistics, calibrator=calibrator, threads=threads)


@app.command("select")
def select_stage(
    settings: SettingsFile,
    prediction: Annotated[list[Path], typer.Option()],
    classes: Annotated[Path, typer.Option()],
    cut: Annotated[Path, typer.Option()],
) -> None:
    """Turn histograms of confidence into a cut."""
    from selftrain.select.stage import select
    from selftrain.settings.selection import SelectSettings

    select(_settings(SelectSettings, settings), prediction, classes, cut)


@app.command("signs")
def signs_stage(
    prediction: Annotated[list[Path], typer.Option()],
    output: Annotated[Path, typer.Option()],
    before: Annotated[list[Path] | None, typer.Option()] = None,
) -> None:
    """Measure what two rounds' predictions say without any truth."""
    from selftrain.alarms.signs import write_signs

    write_signs(prediction, before or [], output)


@app.command("alarms")
def alarms_stage(
    settings: SettingsFile,
    signs: Annotated[Path, typer.Option()],
    cut: Annotated[Path, typer.Option()],
    output: Annotated[Path, typer.Option()],
) -> None:
    """Tell which signs go beyond their limits."""
    from selftrain.alarms.stage import alarms
    from selftrain.settings.alarms import AlarmSettings

    alarms(_settings(AlarmSettings, settings), signs, cut, output)


@app.command("choose")
def choose_stage(
    settings: SettingsFile,
    model: Annotated[Path, typer.Option()],
    images: Annotated[Path, typer.Option()],
    cut: Annotated[Path, typer.Option()],
    output: Annotated[Path, typer.Option()],
    statistics: Annotated[Path | None, typer.Option()] = None,
    calibrator: Annotated[Path | None, typer.Option()] = None,
    threads: Threads = 1,
) -> None:
    """Predict one shard again, its classes chosen relative to a cut."""
    uncompiled.import_networks()
    from selftrain.label.choice import choose
    from selftrain.settings.prediction import PredictStageSettings

    told = _settings(PredictStageSettings, settings)
    choose(told, model, images, cut, output, statistics=statistics, calibrator=calibrator, threads=threads)


@app.command("label")
def label_stage(
    settings: SettingsFile,
    prediction: Annotated[Path, typer.Option()],
    cut: Annotated[Path, typer.Option()],
    output: Annotated[Path, typer.Option()],
    chosen: Annotated[Path | None, typer.Option()] = None,
    review: Annotated[Path | None, typer.Option()] = None,
) -> None:
    """Apply a cut to one shard of predictions."""
    from selftrain.label.stage import label
    from selftrain.settings.selection import LabelSettings

    label(_settings(LabelSettings, settings), prediction, cut, output, chosen, review)


@app.command("merge")
def merge_stage(
    settings: SettingsFile,
    shard: Annotated[list[Path], typer.Option()],
    prediction: Annotated[list[Path], typer.Option()],
    cut: Annotated[Path, typer.Option()],
    output: Annotated[Path, typer.Option()],
    table: Annotated[Path, typer.Option()],
    review: Annotated[Path | None, typer.Option()] = None,
) -> None:
    """Join the shards of pseudo-labels into one file."""
    from selftrain.label.merge import merge
    from selftrain.settings.selection import LabelSettings

    merge(_settings(LabelSettings, settings), shard, prediction, cut, output, table, review)


@app.command("evaluate")
def evaluate_stage(
    settings: SettingsFile,
    model: Annotated[Path, typer.Option()],
    images: Named,
    labeled: Annotated[Path, typer.Option(help="classes.csv of the labeled split.")],
    confusion: Annotated[Path, typer.Option()],
    metrics: Annotated[Path, typer.Option()],
    sizes: Annotated[Path, typer.Option()],
    threads: Threads = 1,
) -> None:
    """Score a model on every evaluation split."""
    uncompiled.import_networks()
    from selftrain.evaluate.stage import evaluate
    from selftrain.settings.prediction import EvaluateStageSettings

    told = _settings(EvaluateStageSettings, settings)
    evaluate(told, model, _named(images), labeled, confusion, metrics, sizes, threads=threads)


@app.command("score")
def score_stage(
    settings: SettingsFile,
    pseudo_labels: Annotated[Path, typer.Option()],
    truth: Annotated[Path, typer.Option()],
    output: Annotated[Path, typer.Option()],
) -> None:
    """Score pseudo-labels against hidden truth."""
    from selftrain.evaluate.pseudo_labels import score
    from selftrain.settings.prediction import ScoreSettings

    score(_settings(ScoreSettings, settings), pseudo_labels, truth, output)


@app.command("preview")
def preview_stage(
    settings: SettingsFile,
    images: Annotated[Path, typer.Option(help="images.csv of the unlabeled split.")],
    model: Named,
    output: Annotated[Path, typer.Option()],
    pseudo_labels: Annotated[list[Path] | None, typer.Option(help="Repeatable.")] = None,
    threads: Threads = 1,
) -> None:
    """Predict a few unlabeled images with the models before and after self-training."""
    uncompiled.import_networks()
    from selftrain.preview.stage import preview
    from selftrain.settings.prediction import PreviewSettings

    told = _settings(PreviewSettings, settings)
    preview(told, images, _named(model), pseudo_labels or [], output, threads=threads)


@app.command("summary")
def summary_stage(settings: SettingsFile, output: Annotated[Path, typer.Option()]) -> None:
    """Join all scores into one table."""
    from selftrain.report.summary import write_summary
    from selftrain.settings.report import SummarySettings

    write_summary(_settings(SummarySettings, settings), output)


@app.command("report")
def report_stage(
    settings: SettingsFile,
    summary: Annotated[Path, typer.Option()],
    output: Annotated[Path, typer.Option(help="Beside it go its folders, figures and images.")],
) -> None:
    """Write the page of all results."""
    from selftrain.report.page import write_report
    from selftrain.settings.report import ReportSettings

    write_report(_settings(ReportSettings, settings), summary, output)
