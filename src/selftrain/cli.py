"""The command line: thin, and quick to start, since every import of a stage waits until the stage is called."""

from __future__ import annotations

import logging
import math
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from selftrain import stages, uncompiled
from selftrain.errors import UserError, said

OwnCode = Annotated[
    str | None,
    typer.Option(help="The network of your own that the model names, as package.module:callable; its code is run."),
]

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Self-training for semantic segmentation.")
app.add_typer(stages.app, name="stage")

DEBUG = "SELFTRAIN_DEBUG"
"""What `--debug` is to the jobs of the graph, and to Snakemake."""


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Say of an error where in the code it was raised.")] = False,
) -> None:
    """Set what is the same for every command."""
    if debug:
        os.environ[DEBUG] = "1"


@app.command()
def check(config: Annotated[list[Path], typer.Argument(help="The config file, or several, as for snakemake.")]) -> None:
    """Verify a config and every file of its tasks, and report all problems at once."""
    from selftrain.data.check import check as check_task
    from selftrain.graph import Graph

    graph = Graph.load(*config)
    problems = [*graph.encoder_problems, *graph.weight_problems, *graph.reading_problems, *graph.review_problems]
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
def plan(
    config: Annotated[list[Path], typer.Argument(help="The config file, or several, as for snakemake.")],
    time: Annotated[bool, typer.Option("--time", help="Time a few steps of each network on this machine.")] = False,
    csv: Annotated[bool, typer.Option(help="Print CSV.")] = False,
    json: Annotated[bool, typer.Option(help="Print JSON, a list of rows.")] = False,
) -> None:
    """Say what is yet to run: jobs, images, forward passes, steps, disk and, once timed, about how many hours."""
    from selftrain.inspection.printing import print_table
    from selftrain.plan.table import plan as make_plan

    table, remarks = make_plan(config, time=time)
    print_table(table, remarks, csv=csv, json=json)


def _positive(given: Any) -> Any:
    """A number, or several, of which each is one that a size or a scale may be."""
    numbers = given if isinstance(given, list | tuple) else [] if given is None else [given]
    if wrong := [number for number in numbers if not 0 < number < math.inf]:
        raise typer.BadParameter(f"{wrong[0]} should be more than 0")
    return given


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="A model.safetensors.")],
    images: Annotated[Path, typer.Argument(help="An image, or a folder of images.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder of masks.")],
    size: Annotated[tuple[int, int] | None, typer.Option(callback=_positive, help="Working height and width.")] = None,
    flip: Annotated[bool, typer.Option(help="Average with the mirrored image.")] = False,
    scale: Annotated[
        list[float] | None, typer.Option(callback=_positive, help="Average over scales; repeatable.")
    ] = None,
    patch: Annotated[
        tuple[int, int] | None, typer.Option(callback=_positive, help="Average over random patches of this size.")
    ] = None,
    patches: Annotated[int, typer.Option(min=1, help="How many of them.")] = 50,
    confidence: Annotated[bool, typer.Option(help="Write confidence beside each mask.")] = False,
    agreement: Annotated[bool, typer.Option(help="Write the agreement of branches beside each mask.")] = False,
    overlay: Annotated[bool, typer.Option(help="Write the image under the classes' colors beside each mask.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Million pixels an image may have; as in training.")] = None,
    own_code: OwnCode = None,
) -> None:
    """Predict masks, palette PNGs of class indices, for a folder of images."""
    uncompiled.import_networks()
    from selftrain.predict.folder import predict_folder
    from selftrain.settings.prediction import InferenceSettings, PatchSettings

    of_patches = None if patch is None else PatchSettings(size=patch, count=patches)
    settings = InferenceSettings(flip=flip, scales=tuple(scale or (1.0,)), patches=of_patches)
    maps = {"confidence": confidence, "agreement": agreement, "overlay": overlay}
    predict_folder(model, images, output, settings, size=size, limit=limit, own_code=own_code or False, **maps)


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="A model.safetensors.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The ONNX file.")],
    size: Annotated[
        tuple[int, int] | None,
        typer.Option(callback=_positive, help="The one height and width it takes; any unless said."),
    ] = None,
    own_code: OwnCode = None,
) -> None:
    """Write a model as ONNX, normalization inside, and check it against the model on random images."""
    from selftrain.models.export import export_onnx

    export_onnx(model, output, size=size, own_code=own_code or False)


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
    file: Annotated[Path, typer.Argument(help="Any artifact: pseudo_labels.h5, model.safetensors, cut.csv, ...")],
    images: Annotated[bool, typer.Option(help="A row per image instead of per class.")] = False,
    portion: Annotated[list[float] | None, typer.Option(help="What would these portions select?")] = None,
    diff: Annotated[Path | None, typer.Option(help="Which pixels changed, from FILE to this one?")] = None,
    csv: Annotated[bool, typer.Option(help="Print CSV.")] = False,
    json: Annotated[bool, typer.Option(help="Print JSON, a list of rows.")] = False,
) -> None:
    """Print what is in a file that the graph made: per class, per image, or fact by fact."""
    from selftrain.inspection.artifact import inspect as look
    from selftrain.inspection.difference import difference
    from selftrain.inspection.labels import divergences
    from selftrain.inspection.printing import print_table

    if diff is not None and portion:
        raise UserError("--diff and --portion are two questions; ask one at a time")
    table = look(file, images=images, portions=portion or []) if diff is None else difference(file, diff, images=images)
    print_table(table, divergences(table), csv=csv, json=json)


@app.command()
def show(
    file: Annotated[Path, typer.Argument(help="pseudo_labels.h5, a shard of predictions, or a model.safetensors.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The picture.")],
    image: Annotated[str | None, typer.Option(help="Its name in the file (or the first); of a model, a file.")] = None,
    table: Annotated[Path | None, typer.Option(help="The images.csv that says where the photos are.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Million pixels a photo may have.")] = 200,
    own_code: OwnCode = None,
) -> None:
    """Draw an image, its classes, their confidence and the agreement of branches side by side."""
    from selftrain.show import show as draw

    draw(file, output, image=image, table=table, limit=limit, own_code=own_code or False)


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
    from selftrain.evaluate import rescore
    from selftrain.settings.data import GroupSettings

    chosen = rescore.parse_subsets(subset or [], others)
    table, groups = rescore.score(confusion, chosen, classes, GroupSettings(frequency=frequency, size=size))
    typer.echo(table.to_csv(index=False) if csv else rescore.as_text(table, groups), nl=not csv)


@app.command()
def compare(
    results: Annotated[list[Path], typer.Argument(help="Results folders, or their summary.csv.")],
    csv: Annotated[bool, typer.Option(help="Print CSV.")] = False,
    json: Annotated[bool, typer.Option(help="Print JSON, a list of rows.")] = False,
) -> None:
    """Join the summaries of several runs: the last round of each experiment, run beside run."""
    from selftrain.inspection.comparison import compare as join
    from selftrain.inspection.printing import print_table

    print_table(join(results), csv=csv, json=json)


@app.command("export-labels")
def export_labels(
    file: Annotated[Path, typer.Argument(help="A pseudo_labels.h5.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder of masks.")],
    image: Annotated[
        list[str] | None, typer.Option(help="The name of one wanted; repeatable. All unless given.")
    ] = None,
) -> None:
    """Write pseudo-labels as palette PNGs of class ids, for an annotation tool or another trainer."""
    from selftrain.label.masks import export_labels as write

    write(file, output, images=image or [])


@app.command()
def summary(file: Annotated[Path, typer.Argument(help="A summary.csv.")]) -> None:
    """Print a summary: mIoU in percent by round, and the gain over round 0."""
    from selftrain.report.terminal import print_summary

    print_summary(file)


@app.command()
def schema(
    markdown: Annotated[bool, typer.Option(help="As a page to read, docs/settings.md, instead.")] = False,
) -> None:
    """Print the JSON schema of the config file: every key with its default and its meaning."""
    import json

    from selftrain.settings import reference
    from selftrain.settings.config import Config

    typer.echo(reference.page() if markdown else json.dumps(Config.model_json_schema(), indent=2))


def main() -> None:
    """Run the command line; a mistake, or a file that the system refuses, becomes one message and exit code 1."""
    # Before h5py is imported. HDF5 would lock what it opens, which not every shared file system can, and which nothing
    # here needs: a file is written under a temporary name, and never again once it has its own.
    os.environ.setdefault("HDF5_USE_FILE_LOCKING", "FALSE")
    terminal = logging.StreamHandler(sys.stderr)
    terminal.addFilter(lambda told: told.name.startswith("selftrain") or told.levelno >= logging.WARNING)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s", handlers=[terminal])
    for level in (logging.INFO, logging.WARNING, logging.ERROR):
        logging.addLevelName(level, logging.getLevelName(level).lower())
    try:
        app()
    except (UserError, OSError, MemoryError) as error:
        if os.environ.get(DEBUG):
            raise
        logging.error(said(error))
        sys.exit(1)
