"""The command line: thin, and quick to start, since every import of a stage waits until the stage is called."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand

from selftrain.errors import UserError
from selftrain.settings.base import Settings

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Self-training for semantic segmentation.")
stage = typer.Typer(no_args_is_help=True)
app.add_typer(stage, name="stage")

SettingsFile = Annotated[Path, typer.Option("--settings", help="The stage's settings, a JSON file.")]
Named = Annotated[list[str], typer.Option(help="NAME=FILE, repeatable.")]
Threads = Annotated[int, typer.Option(help="CPU threads.")]
Kind = TypeVar("Kind", bound=Settings)


def _settings(kind: type[Kind], file: Path) -> Kind:
    return kind.model_validate_json(file.read_text())


def _named(pairs: list[str]) -> dict[str, Path]:
    return {name: Path(path) for name, _, path in (pair.partition("=") for pair in pairs)}


@stage.callback()
def divert(
    log: Annotated[Path | None, typer.Option(help="Where all output but warnings and errors goes.")] = None,
) -> None:
    """One job of the graph; Snakemake calls these."""
    if log is None:
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    terminal = os.fdopen(os.dup(sys.stderr.fileno()), "w", buffering=1)
    with log.open("w") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    warnings = logging.StreamHandler(terminal)
    warnings.setLevel(logging.WARNING)
    warnings.setFormatter(logging.Formatter(f"%(levelname)s: {log.stem}: %(message)s"))
    logging.getLogger().addHandler(warnings)


@app.command()
def check(config: Annotated[list[Path], typer.Argument(help="The config file, or several, as for snakemake.")]) -> None:
    """Verify a config and every file of its tasks, and report all problems at once."""
    from selftrain.data.check import check as check_task
    from selftrain.graph import Graph

    graph = Graph.load(*config)
    problems = [*graph.weight_problems, *graph.reading_problems]
    for task in graph.config.tasks:
        try:
            table = check_task(graph.check(task, drawn=False))
            counts = "all its images are yet to be drawn" if table.empty else table.to_string(index=False)
            typer.echo(f"task '{task}': no problems\n{counts}")
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("\n".join(problems))


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="A model.safetensors.")],
    images: Annotated[Path, typer.Argument(help="An image, or a folder of images.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder of masks.")],
    size: Annotated[tuple[int, int] | None, typer.Option(help="Working height and width.")] = None,
    flip: Annotated[bool, typer.Option(help="Average with the mirrored image.")] = False,
    scale: Annotated[list[float] | None, typer.Option(help="Average over scales; repeatable.")] = None,
    patch: Annotated[tuple[int, int] | None, typer.Option(help="Average over random patches of this size.")] = None,
    patches: Annotated[int, typer.Option(help="How many of them.")] = 50,
    confidence: Annotated[bool, typer.Option(help="Write confidence beside each mask.")] = False,
    agreement: Annotated[bool, typer.Option(help="Write the agreement of branches beside each mask.")] = False,
) -> None:
    """Predict masks, palette PNGs of class indices, for a folder of images."""
    from selftrain.predict.folder import predict_folder
    from selftrain.settings.prediction import InferenceSettings, PatchSettings

    of_patches = None if patch is None else PatchSettings(size=patch, count=patches)
    settings = InferenceSettings(flip=flip, scales=tuple(scale or (1.0,)), patches=of_patches)
    predict_folder(model, images, output, settings, size=size, confidence=confidence, agreement=agreement)


class ManyPortions(TyperCommand):
    """Lets `--portion .1 .2 .5` stand for `--portion .1 --portion .2 --portion .5`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat the option before each further number."""
        repeated: list[str] = []
        for before, argument in zip(["", *args], args, strict=False):
            number = argument.replace(".", "", 1).isdigit()
            if number and before != "--portion" and "--portion" in repeated:
                repeated.append("--portion")
            repeated.append(argument)
        return super().parse_args(ctx, repeated)


@app.command(cls=ManyPortions)
def inspect(
    file: Annotated[Path, typer.Argument(help="pseudo_labels.h5, a shard of predictions, cut.csv, ...")],
    images: Annotated[bool, typer.Option(help="A row per image instead of per class.")] = False,
    portion: Annotated[list[float] | None, typer.Option(help="What would these portions select?")] = None,
    csv: Annotated[bool, typer.Option(help="Print CSV.")] = False,
) -> None:
    """Print what is in a file: per class, or per image."""
    from selftrain.inspect import divergences
    from selftrain.inspect import inspect as look

    table = look(file, images=images, portions=portion or [])
    if csv:
        typer.echo(table.to_csv(index=False), nl=False)
    else:
        typer.echo("\n".join([table.to_string(index=False), *divergences(table)]))


@app.command()
def show(
    file: Annotated[Path, typer.Argument(help="pseudo_labels.h5, a shard of predictions, or a model.safetensors.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The picture.")],
    image: Annotated[str | None, typer.Option(help="Its name in the file (or the first); of a model, a file.")] = None,
    table: Annotated[Path | None, typer.Option(help="The images.csv that says where the photos are.")] = None,
) -> None:
    """Draw an image, its classes, their confidence and the agreement of branches side by side."""
    from selftrain.show import show as draw

    draw(file, output, image=image, table=table)


@app.command("score")
def score_again(
    confusion: Annotated[list[Path], typer.Argument(help="A confusion.csv, or several to compare.")],
    subset: Annotated[list[str] | None, typer.Option(help="A mean over classes, NAME=CLASS,...; repeatable.")] = None,
    others: Annotated[str, typer.Option(help="Pixels of classes outside a subset: counted or ignored.")] = "counted",
    classes: Annotated[Path | None, typer.Option(help="classes.csv of the labeled split: means by groups.")] = None,
    frequency: Annotated[float, typer.Option(min=0, max=1, help="Frequent: in more of the images.")] = 0.5,
    size: Annotated[float, typer.Option(min=0, max=1, help="Large: more of the images that show it.")] = 0.1,
    csv: Annotated[bool, typer.Option(help="Print CSV, as in metrics.csv.")] = False,
) -> None:
    """Compute all scores again that follow from confusion matrices, without the model."""
    from selftrain.evaluate import again
    from selftrain.settings.data import GroupSettings

    chosen = again.parse_subsets(subset or [], others)
    table, groups = again.score(confusion, chosen, classes, GroupSettings(frequency=frequency, size=size))
    typer.echo(table.to_csv(index=False) if csv else again.as_text(table, groups), nl=not csv)


@app.command()
def summary(file: Annotated[Path, typer.Argument(help="A summary.csv.")]) -> None:
    """Print a summary: mIoU in percent by round, and the gain over round 0."""
    from selftrain.report.terminal import print_summary

    print_summary(file)


@app.command()
def schema() -> None:
    """Print the JSON schema of the config file."""
    import json

    from selftrain.settings.config import Config

    typer.echo(json.dumps(Config.model_json_schema(), indent=2))


@stage.command("draw")
def draw(settings: SettingsFile, output: Annotated[Path, typer.Option()]) -> None:
    """Draw images and labels of the built-in data."""
    from selftrain.data.streets import write
    from selftrain.settings.data import StreetsSettings

    told = _settings(StreetsSettings, settings)
    write(output, domain=told.domain, count=told.count, seed=told.seed, size=told.size)


@stage.command("check")
def check_stage(settings: SettingsFile, output: Annotated[Path, typer.Option()]) -> None:
    """Verify every file of a task."""
    from selftrain.data.check import check as check_task
    from selftrain.settings.data import CheckSettings

    check_task(_settings(CheckSettings, settings), output)


@stage.command("list")
def list_stage(settings: SettingsFile, output: Annotated[Path, typer.Option()]) -> None:
    """List the images of a split."""
    from selftrain.data.tables import write_images
    from selftrain.settings.data import ListSettings

    write_images(_settings(ListSettings, settings), output)


@stage.command("statistics")
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


@stage.command("train")
def train_stage(
    settings: SettingsFile,
    machine: Annotated[Path, typer.Option(help="The machine's settings, a JSON file.")],
    resume: Annotated[Path, typer.Option(help="The folder of resume states.")],
    input: Named,
    model: Annotated[Path, typer.Option()],
    table: Annotated[Path, typer.Option()],
    manifest: Annotated[Path, typer.Option()],
    examples: Annotated[Path | None, typer.Option()] = None,
    code: str = "",
) -> None:
    """Train a model."""
    from selftrain.settings.config import MachineSettings
    from selftrain.settings.training import TrainStageSettings
    from selftrain.train.stage import TrainFiles, train

    files = TrainFiles(model=model, table=table, manifest=manifest, examples=examples, resume=resume, **_named(input))
    train(_settings(TrainStageSettings, settings), files, _settings(MachineSettings, machine), code)


@stage.command("calibrate")
def calibrate_stage(
    settings: SettingsFile,
    model: Annotated[Path, typer.Option()],
    images: Annotated[Path, typer.Option()],
    output: Annotated[Path, typer.Option()],
    threads: Threads = 1,
) -> None:
    """Fit a calibrator of a model on held-out labels."""
    from selftrain.calibrate.stage import calibrate
    from selftrain.settings.calibration import CalibrateSettings

    calibrate(_settings(CalibrateSettings, settings), model, images, output, threads=threads)


@stage.command("reliability")
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
    from selftrain.calibrate.reliability import measure
    from selftrain.settings.prediction import ReliabilitySettings

    told = _settings(ReliabilitySettings, settings)
    measure(told, model, calibrator, _named(images), reliability, calibration, threads=threads)


@stage.command("predict")
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
    from selftrain.predict.stage import predict_shard
    from selftrain.settings.prediction import PredictStageSettings

    told = _settings(PredictStageSettings, settings)
    predict_shard(told, model, images, output, statistics=statistics, calibrator=calibrator, threads=threads)


@stage.command("select")
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


@stage.command("signs")
def signs_stage(
    prediction: Annotated[list[Path], typer.Option()],
    output: Annotated[Path, typer.Option()],
    before: Annotated[list[Path] | None, typer.Option()] = None,
) -> None:
    """Measure what two rounds' predictions say without any truth."""
    from selftrain.alarms.signs import write_signs

    write_signs(prediction, before or [], output)


@stage.command("alarms")
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


@stage.command("choose")
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
    from selftrain.label.choice import choose
    from selftrain.settings.prediction import PredictStageSettings

    told = _settings(PredictStageSettings, settings)
    choose(told, model, images, cut, output, statistics=statistics, calibrator=calibrator, threads=threads)


@stage.command("label")
def label_stage(
    settings: SettingsFile,
    prediction: Annotated[Path, typer.Option()],
    cut: Annotated[Path, typer.Option()],
    output: Annotated[Path, typer.Option()],
    chosen: Annotated[Path | None, typer.Option()] = None,
) -> None:
    """Apply a cut to one shard of predictions."""
    from selftrain.label.stage import label
    from selftrain.settings.selection import LabelSettings

    label(_settings(LabelSettings, settings), prediction, cut, output, chosen)


@stage.command("merge")
def merge_stage(
    settings: SettingsFile,
    shard: Annotated[list[Path], typer.Option()],
    prediction: Annotated[list[Path], typer.Option()],
    cut: Annotated[Path, typer.Option()],
    output: Annotated[Path, typer.Option()],
    table: Annotated[Path, typer.Option()],
) -> None:
    """Join the shards of pseudo-labels into one file."""
    from selftrain.label.merge import merge
    from selftrain.settings.selection import LabelSettings

    merge(_settings(LabelSettings, settings), shard, prediction, cut, output, table)


@stage.command("evaluate")
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
    from selftrain.evaluate.stage import evaluate
    from selftrain.settings.prediction import EvaluateStageSettings

    told = _settings(EvaluateStageSettings, settings)
    evaluate(told, model, _named(images), labeled, confusion, metrics, sizes, threads=threads)


@stage.command("score")
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


@stage.command("summary")
def summary_stage(settings: SettingsFile, output: Annotated[Path, typer.Option()]) -> None:
    """Join all scores into one table."""
    from selftrain.report.summary import write_summary
    from selftrain.settings.report import ReportSettings

    write_summary(_settings(ReportSettings, settings), output)


@stage.command("report")
def report_stage(
    settings: SettingsFile,
    summary: Annotated[Path, typer.Option()],
    output: Annotated[Path, typer.Option()],
) -> None:
    """Write the page of all results."""
    from selftrain.report.page import write_report
    from selftrain.settings.report import ReportSettings

    write_report(_settings(ReportSettings, settings), summary, output)


def main() -> None:
    """Run the command line; a UserError becomes one message and exit code 1."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s", stream=sys.stderr)
    for level in (logging.INFO, logging.WARNING, logging.ERROR):
        logging.addLevelName(level, logging.getLevelName(level).lower())
    try:
        app()
    except UserError as error:
        if os.environ.get("SELFTRAIN_DEBUG"):
            raise
        logging.error(error)
        sys.exit(1)
