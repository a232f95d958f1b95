"""Pictures of one image, and what else is told of the agreement of branches: tables of files, masks of a folder."""

import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from test_agreement import COLORS, SIZES, Run, votes_of, write_task
from typer.testing import CliRunner

from selftrain.cli import app
from selftrain.confidence import log_odds_of
from selftrain.data.augmentation import to_tensor
from selftrain.data.palette import palette
from selftrain.data.reading import read_image
from selftrain.data.tables import read_images
from selftrain.errors import UserError
from selftrain.inspection.artifact import inspect
from selftrain.label.pseudo_labels import PseudoLabels
from selftrain.predict.folder import predict_folder
from selftrain.predict.forward import load_predictor
from selftrain.predict.store import Predictions
from selftrain.settings.prediction import InferenceSettings
from selftrain.show import WIDTH, _shown, draw, show

torch.set_num_threads(1)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """As a task's folder: photos under data, and the files of a run with three branches and one with a single one."""
    folder = tmp_path_factory.mktemp("results")
    write_task(folder / "data")
    for branches, agreement in ((3, 0.6), (1, None)):
        Run(folder / "data", folder / f"{branches}", branches=branches, agreement=agreement, portion=1)
    return folder


@pytest.fixture
def elsewhere(results, tmp_path):
    """A copy of a file in a folder that has no photos above it."""

    def copy(name):
        (tmp_path / "copies").mkdir(exist_ok=True)
        path = tmp_path / "copies" / name.replace("/", "-")
        path.write_bytes((results / name).read_bytes())
        return path

    return copy


def panels(figure):
    """What each panel shows; color bars have no image of this kind."""
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]


def brute_classes(label, photo=None):
    """The classes panel, pixel by pixel."""
    colors, expected = np.reshape(palette(3, COLORS), (256, 3)), np.zeros((*label.shape, 3))
    for place, class_id in np.ndenumerate(label):
        below = 0 if photo is None else photo[place].astype(float)
        if class_id == 255:
            expected[place] = 0.3 * below
        else:
            expected[place] = colors[class_id] if photo is None else 0.65 * colors[class_id] + 0.35 * below
    return expected


# The picture


@pytest.mark.parametrize(
    ("name", "photo", "count"),
    [("3/labels.h5", True, 4), ("3/p-0.h5", False, 3), ("1/labels.h5", False, 2)],
)
def test_a_panel_for_everything_there_is(results, elsewhere, tmp_path, name, photo, count):
    show(results / name if photo else elsewhere(name), tmp_path / "deep/picture.png")
    with Image.open(tmp_path / "deep/picture.png") as picture:
        assert abs(picture.width - 110 * WIDTH * count) <= 2 and picture.format == "PNG"
        assert len(np.unique(np.asarray(picture).reshape(-1, 4), axis=0)) > 50
    assert len(list((tmp_path / "deep").iterdir())) == 1


def test_the_panels_of_pseudo_labels(results):
    file, name = results / "3/labels.h5", "unlabeled-3"
    labels, table = PseudoLabels(file), read_images(results / "data/unlabeled/images.csv").set_index("image")
    photo, classes, confidence, share = panels(draw(_shown(file, name, None)))
    assert (photo == read_image(table.image_file[name])).all()
    assert np.abs(classes - brute_classes(labels.label(name), photo)).max() <= 1
    assert 0.1 < (labels.label(name) == 255).mean() < 0.9
    assert (confidence == labels.confidence(name)).all()
    assert (share == labels.agreement(name) / 3).all() and len(np.unique(share)) == 3


def test_without_a_photo_what_is_ignored_is_black(elsewhere):
    file = elsewhere("3/labels.h5")
    label, figure = PseudoLabels(file).label(0), draw(_shown(file, None, None))
    classes, *_ = panels(figure)
    assert (classes == brute_classes(label)).all() and (classes[label == 255] == 0).all() and (label == 255).any()
    assert f"({(label != 255).mean():.0%} of the pixels)" in figure.axes[0].get_title()
    assert figure.axes[2].images[0].get_clim() == (1 / 3, 1), "white where all agree"


def test_the_panels_of_predictions(results):
    file = results / "3/p-0.h5"
    with Predictions(file) as shard:
        classes, bins, agreement = *shard.read(1), shard.agreement(1)
    photo, drawn, confidence, share = panels(draw(_shown(file, "unlabeled-1", None)))
    assert np.abs(drawn - brute_classes(classes, photo)).max() <= 1 and (classes == 255).any()
    assert (confidence == log_odds_of(bins)).all() and (share == agreement / 3).all()


def test_a_model_predicts_the_image_now(results, tmp_path):
    for branches in (1, 2):
        model, file = results / f"data/{branches}.safetensors", results / "data/unlabeled/images/unlabeled-2.png"
        found = load_predictor(model, InferenceSettings(), CPU, count_agreement=True)(
            to_tensor(read_image(file))[None], ["a"], SIZES[2]
        ).decided()
        shown = _shown(model, str(file), None)
        photo, drawn, confidence, *share = panels(draw(shown))
        assert (photo == read_image(file)).all() and shown.name == "unlabeled-2.png"
        assert np.abs(drawn - brute_classes(found.classes[0].numpy(), photo)).max() <= 1
        assert (confidence == log_odds_of(found.bins[0].numpy())).all()
        assert len(share) == branches - 1 and all((one == found.agreement[0].numpy() / 2).all() for one in share)
    show(model, tmp_path / "picture.pdf", image=str(file))
    assert (tmp_path / "picture.pdf").read_bytes().startswith(b"%PDF")


def test_the_first_image_unless_another_is_named(results):
    file = results / "3/labels.h5"
    assert _shown(file, None, None).name == PseudoLabels(file).names[0] == "unlabeled-0"
    assert (_shown(file, "unlabeled-4", None).classes == PseudoLabels(file).label(4)).all()


def test_photos_are_where_a_table_says(results, elsewhere, tmp_path):
    file, table = elsewhere("3/labels.h5"), read_images(results / "data/unlabeled/images.csv")
    assert _shown(file, None, None).photo is None
    table.image_file = [*table.image_file[1:], "absent.png"]
    table.to_csv(tmp_path / "images.csv", index=False)
    found = _shown(file, "unlabeled-1", tmp_path / "images.csv").photo
    expected = Image.open(table.image_file[1]).resize(SIZES[1][::-1], Image.Resampling.BILINEAR)
    assert found.shape == (*SIZES[1], 3) and (found == np.asarray(expected)).all()
    with pytest.raises(UserError, match=r"images\.csv: names no photo of 'unlabeled-4'"):
        _shown(file, "unlabeled-4", tmp_path / "images.csv")


def test_a_photo_that_is_gone_is_left_out(results, elsewhere, tmp_path):
    file = elsewhere("3/labels.h5")
    table = read_images(results / "data/unlabeled/images.csv").assign(image_file="absent.png")
    (tmp_path / "data/unlabeled").mkdir(parents=True)
    table.to_csv(tmp_path / "data/unlabeled/images.csv", index=False)
    assert _shown(file, None, None).photo is None
    table[1:].to_csv(tmp_path / "data/unlabeled/images.csv", index=False)
    assert _shown(file, None, None).photo is None


# What is wrong


def test_the_command_line(results, tmp_path):
    output = tmp_path / "picture.png"
    arguments = ["show", str(results / "3/labels.h5"), "-o", str(output), "--image", "unlabeled-2"]
    arguments += ["--table", str(results / "data/unlabeled/images.csv")]
    assert CliRunner().invoke(app, arguments).exit_code == 0 and output.exists()
    wrong = CliRunner().invoke(app, [*arguments, "--image", "unlabelled-2"])
    assert wrong.exit_code == 1 and isinstance(wrong.exception, UserError)
    assert "unknown image 'unlabelled-2'; did you mean 'unlabeled-2'?" in str(wrong.exception)


@pytest.mark.parametrize(
    ("file", "output", "image", "message"),
    [
        ("3/labels.h5", "a.png", "unlabeled-9", r"labels\.h5: unknown image 'unlabeled-9'; did you mean 'unlabeled-"),
        ("3/p-0.h5", "a.png", "unlabeled", "unknown image 'unlabeled'; did you mean 'unlabeled-"),
        ("3/c-0.h5", "a.png", None, "no such file"),
        ("3", "a.png", None, "no such file"),
        ("3/cut.csv", "a.png", None, "show draws images of .*; this is none of them"),
        ("3/l-0.h5", "a.png", None, "show draws images of .*; this is none of them"),
        ("data/statistics.h5", "a.png", None, "show draws images of .*; this is none of them"),
        ("3/labels.h5", "a.docx", None, r"a\.docx: name a picture that ends in one of .*\.pdf, .*\.png"),
        ("3/labels.h5", "a", None, "name a picture that ends in one of"),
        ("data/3.safetensors", "a.png", None, "is a model; give the image file .* with --image"),
        ("data/3.safetensors", "a.png", "absent.png", r"absent\.png"),
        ("data/3.safetensors", "a.png", "3/cut.csv", r"cut\.csv"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_is_written(results, tmp_path, monkeypatch, file, output, image, message):
    monkeypatch.chdir(results)
    with pytest.raises(UserError, match=message):
        show(results / file, tmp_path / output, image=image)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["3/labels.h5", "3/p-0.h5", "data/3.safetensors"])
def test_a_file_cut_short(results, elsewhere, tmp_path, name):
    short, photo = elsewhere(name), str(results / "data/unlabeled/images/unlabeled-0.png")
    short.write_bytes(short.read_bytes()[:-100])
    with pytest.raises(UserError, match=short.name):
        show(short, tmp_path / "a.png", image=photo if name.endswith("safetensors") else None)
    assert [path.name for path in tmp_path.iterdir()] == ["copies"]


@pytest.mark.parametrize("content", [None, "a,b\n1,2\n", ""])
def test_another_table(results, tmp_path, content):
    if content is not None:
        (tmp_path / "images.csv").write_text(content)
    with pytest.raises(UserError, match=r"images\.csv"):
        show(results / "3/labels.h5", tmp_path / "a.png", table=tmp_path / "images.csv")
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize("file", ["data/3.safetensors", "3/labels.h5", "3/p-0.h5"])
def test_a_picture_does_not_take_the_place_of_what_it_shows(results, file):
    """Neither of the image that a model predicts nor of the photo that a table names."""
    photo = results / "data/unlabeled/images/unlabeled-0.png"
    before = photo.read_bytes()
    try:
        with pytest.raises(UserError, match="would take the place of what it shows"):
            show(results / file, photo, image=str(photo) if file.endswith("safetensors") else None)
        assert photo.read_bytes() == before
    finally:
        photo.write_bytes(before)


def test_drawing_what_is_in_a_file_needs_no_torch():
    code = "import sys, selftrain.show; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# Tables of files


def test_tables_tell_on_how_much_branches_agree(results, tmp_path):
    """As many of them as the filter asks for, else all."""
    plain, some = (Run(results / "data", tmp_path / str(share), agreement=share) for share in (None, 0.6))
    votes = votes_of(plain)
    for run, number in ((plain, 3), (some, 2)):
        expected = votes[:, number - 1 :].sum(1) / votes.sum(1)
        for shown in (inspect(run.predicted[0]), inspect(run.output), inspect(run.csv)):
            np.testing.assert_allclose(shown.agreeing, expected)
            assert shown.predicted.tolist() == votes[:, (number - 1 if run is some else 0) :].sum(1).tolist()


def test_tables_are_silent_where_there_is_one_branch(results):
    for name in ("p-0.h5", "labels.h5"):
        assert "agreeing" not in inspect(results / "1" / name) and "agreeing" in inspect(results / "3" / name)
    assert inspect(results / "1/pseudo_labels.csv").agreeing.isna().all()


def test_a_class_that_is_never_predicted_agrees_on_nothing(results, tmp_path):
    path = tmp_path / "p.h5"
    path.write_bytes((results / "3/p-0.h5").read_bytes())
    with h5py.File(path, "a") as file:
        file["votes"][1] = 0
    assert inspect(path).agreeing.isna().tolist() == [False, True, False]


# Masks of a folder


@pytest.mark.parametrize("branches", [2, 3])
def test_agreement_beside_masks_of_a_folder(results, tmp_path, branches):
    model, images = results / f"data/{branches}.safetensors", results / "data/unlabeled/images"
    predict_folder(model, images, tmp_path, InferenceSettings(), agreement=True)
    counting = load_predictor(model, InferenceSettings(), CPU, count_agreement=True)
    for number, size in enumerate(SIZES):
        pixels = to_tensor(read_image(images / f"unlabeled-{number}.png"))[None]
        agreement = counting(pixels, ["a"], size).decided().agreement[0].numpy()
        with Image.open(tmp_path / f"unlabeled-{number}.agreement.png") as gray:
            said = np.asarray(gray)
        assert said.dtype == np.uint8 and (said == np.rint(255 * (agreement / branches))).all()
        assert (said[agreement == branches] == 255).all() and (said < 255).any()
    assert len(list(tmp_path.iterdir())) == 2 * len(SIZES)


OWN = ["--own-code", "test_agreement:Branched"]


def test_a_model_with_one_branch_has_no_agreement_to_write(results, tmp_path):
    arguments = ["predict", str(results / "data/1.safetensors"), str(results / "data/unlabeled/images")]
    refused = CliRunner().invoke(app, [*arguments, "-o", str(tmp_path / "masks"), "--agreement", *OWN])
    assert isinstance(refused.exception, UserError) and not (tmp_path / "masks").exists()
    assert "1.safetensors: has one branch" in str(refused.exception) and "--agreement" in str(refused.exception)
