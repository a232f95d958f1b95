"""What the page's script is told of images, and the pictures that it gets."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image
from previews import write_preview
from test_report import CLASSES, write_results
from test_report_curriculum import give_branches

from selftrain import artifacts
from selftrain.confidence import log_odds_of_coarse
from selftrain.label.pseudo_labels import PseudoLabels
from selftrain.report.browser import browsers, ramp
from selftrain.report.results import read_results
from selftrain.report.summary import write_summary
from selftrain.settings.report import PageSettings

MODELS = ["pretrained/base/seed-0", "st/seed-0/round-2", "NA/seed-0/round-1"]
IMAGES = ["image-3", "image-0", "image-4"]


def numbers(uri):
    assert uri.startswith("data:image/png;base64,")
    picture = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert picture.mode == "L"
    return np.asarray(picture)


@pytest.fixture
def made(tmp_path):
    """Settings whose task has a preview, what models predict in it, and how many branches agree in one round."""
    settings = write_results(tmp_path, seeds=(0, 1))
    agreement = give_branches(tmp_path / "st/seed-0/round-2", [0.5, 0.25, 1, np.nan], branches=2)
    predicted = write_preview(tmp_path / "preview.h5", CLASSES, dict.fromkeys(IMAGES, (6, 8)), MODELS)
    task = settings.tasks[0].model_copy(update={"preview": str(tmp_path / "preview.h5")})
    write_summary(settings, tmp_path / "summary.csv")
    return settings.model_copy(update={"tasks": (task,)}), predicted, agreement


def told(settings, folder, **page):
    settings = settings.model_copy(update={"page": PageSettings(**page)})
    with artifacts.writing_folder(folder / "images") as images:
        (found,) = browsers(read_results(settings, folder / "summary.csv"), images)
    return found


def test_layers_are_before_then_of_each_experiment_its_rounds_and_after(made, tmp_path):
    found = told(made[0], tmp_path)
    layers = [(one["title"], one["kind"], one["experiments"]) for one in found["layers"]]
    assert layers == [
        ("truth", "classes", None),
        ("before: base", "classes", ["st", "NA"]),
        ("pseudo-labels, round 1", "classes", ["st"]),
        ("confidence, round 1", "confidence", ["st"]),
        ("pseudo-labels, round 2", "classes", ["st"]),
        ("confidence, round 2", "confidence", ["st"]),
        ("branches, round 2", "agreement", ["st"]),
        ("after round 2", "classes", ["st"]),
        ("pseudo-labels, round 1", "classes", ["NA"]),
        ("confidence, round 1", "confidence", ["NA"]),
        ("after round 1", "classes", ["NA"]),
    ]
    assert len({one["key"] for one in found["layers"]}) == len(layers)
    assert found["experiments"] == ["st", "NA"] and found["classes"] == list(CLASSES) and len(found["colors"]) == 4
    assert [one["name"] for one in found["images"]] == IMAGES
    assert [one["confidence"] for one in found["images"]] == [0, 1, 2]
    assert [one["rarity"] for one in found["images"]] == [3, 2, 1]


def test_an_oracle_is_called_one_and_comes_last(made, tmp_path):
    rounds = tuple(one.model_copy(update={"oracle": one.experiment == "st"}) for one in made[0].rounds)
    found = told(made[0].model_copy(update={"rounds": rounds}), tmp_path)
    assert found["experiments"] == ["NA", "st"]
    assert "oracle: base" in [one["title"] for one in found["layers"]]


def test_pictures_are_the_numbers_of_the_files(made, tmp_path):
    settings, predicted, agreement = made
    found = told(settings, tmp_path)
    assert len(found["pictures"]) == len(IMAGES) and not list((tmp_path / "images").iterdir())
    labels = PseudoLabels(tmp_path / "st/seed-0/round-2/pseudo_labels.h5")
    for position, (name, pictures) in enumerate(zip(IMAGES, found["pictures"], strict=True)):
        layers = {key: numbers(uri) for key, (uri, _) in pictures["layers"].items()}
        truth = np.asarray(Image.open(tmp_path / f"{name[-1]}-label.png"))
        assert (layers["truth"] == truth).all()
        assert found["images"][position]["classes"] == np.unique(truth).tolist()
        assert (layers[f"before {MODELS[0]}"] == predicted[MODELS[0]][position]).all()
        assert (layers["after st 2"] == predicted[MODELS[1]][position]).all()
        assert (layers["labels st 2"] == labels.label(name)).all()
        assert (log_odds_of_coarse(layers["confidence st 2"]) == labels.confidence(name)).all()
        assert (layers["agreement st 2"] == np.where(agreement[int(name[-1])] == 2, 255, 128)).all()
        notes = {key: note for key, (_, note) in pictures["layers"].items()}
        valid = labels.label(name) != 255
        right = (labels.label(name) == truth)[valid].mean()
        assert notes["labels st 2"] == f"{valid.mean():.0%} labeled, {right:.0%} right"
        assert notes["after st 2"] == f"{(layers['after st 2'] == truth).mean():.0%} right"
        assert notes["agreement st 2"] == f"{(agreement[int(name[-1])] == 2).mean():.0%} agree"
        assert notes["confidence st 2"] == f"mean log-odds {labels.confidence(name).mean():.1f}"


def test_more_than_the_page_may_hold_goes_beside_it_and_is_the_same(made, tmp_path):
    inside = told(made[0], tmp_path)["pictures"]
    beside = told(made[0], tmp_path, embedded=0)
    assert "pictures" not in beside
    for position, pictures in enumerate(inside):
        script = (tmp_path / f"images/tiny/{position}.js").read_text()
        head, content, tail = script.rstrip().split("\n")
        assert head == f'selftrain.show("tiny", {position},' and tail == ");" and json.loads(content) == pictures
    assert "pictures" in told(made[0], tmp_path), "and what was beside it is gone when it fits again"
    assert not list((tmp_path / "images").iterdir())


def test_without_a_preview_there_is_nothing_to_browse(tmp_path):
    settings = write_results(tmp_path)
    write_summary(settings, tmp_path / "summary.csv")
    assert browsers(read_results(settings, tmp_path / "summary.csv"), tmp_path / "images") == []


def test_surer_pixels_are_brighter():
    light = np.array(ramp()) @ [0.2126, 0.7152, 0.0722]
    assert light.shape == (256,) and (np.diff(light) >= -1).all() and light[-1] > light[0] + 100
