"""Whole trainings of `mean_teacher_mixing` on the toy."""

import logging
import random
from itertools import product

import numpy as np
import pandas as pd
import pytest
import tiny
import torch

from selftrain.data.batches import Stream
from selftrain.data.tables import write_statistics
from selftrain.errors import UserError
from selftrain.models import files
from selftrain.settings.config import MachineSettings
from selftrain.train import examples, inputs, stage
from selftrain.train.losses import at_size
from selftrain.train.stage import train

STILL = {"blur_probability": 0, "jitter_probability": 0}
WHOLE = {"crop": None, "scale": (1, 1)}


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    """Inputs: a labeled split of five, an unlabeled one of seven, and the labeled one's class shares."""
    folder = tmp_path_factory.mktemp("data")
    inputs = {
        "labeled": tiny.split(folder / "labeled"),
        "unlabeled": tiny.split(folder / "unlabeled", (tiny.SIZE,) * 7, seed=1, label_files=False),
        "distribution": folder / "classes.csv",
    }
    write_statistics(tiny.READ, inputs["labeled"], inputs["distribution"], folder / "statistics.h5")
    return inputs


@pytest.fixture
def run(tmp_path, splits):
    """Trains in a folder of its own below `tmp_path` and returns its files."""

    def train_in(name, settings, machine=tiny.NOW, **inputs):
        given = splits | {"examples": tmp_path / name / "examples.h5"} | inputs
        paths = tiny.outputs(tmp_path / name, **given)
        train(settings, paths, machine)
        return paths

    return train_in


def told(steps=4, augmentation=None, teacher=None, batch_size=4, seed=0, evaluate="student", **algorithm):
    """Settings of a training with mixed images; what is not of every training is of the algorithm."""
    return tiny.stage(
        {"name": "mean_teacher_mixing"} | algorithm,
        steps=steps,
        augmentation=augmentation,
        teacher=teacher or {},
        batch_size=batch_size,
        seed=seed,
        evaluate=evaluate,
    )


# What is learned


def test_with_few_labels_it_learns_the_toy(run, tmp_path):
    unlabeled = tiny.split(tmp_path / "many", (tiny.SIZE,) * 20, seed=2, label_files=False)
    labeled = tiny.split(tmp_path / "few", (tiny.SIZE,) * 2, seed=3)
    settings = told(steps=150, augmentation={"jitter_probability": 0}, evaluate="teacher")
    paths = run("learn", settings, unlabeled=unlabeled, labeled=labeled)
    table = pd.read_csv(paths.table)
    assert table.labeled.iloc[-3:].mean() < 0.4 * table.labeled.iloc[0]
    assert table.share_above_threshold.iloc[-3:].mean() > 0.3 > table.share_above_threshold.iloc[0]
    assert table.mixed.iloc[-3:].mean() / table.mixed_weight.iloc[-3:].mean() < 0.6
    model, right, counted = files.load(paths.model)[0].eval(), 0, 0
    held_out = Stream(tiny.split(tmp_path / "held_out", (tiny.SIZE,) * 4, seed=4), tiny.READ)
    for number in range(len(held_out)):
        image, label = held_out.item(number)
        with torch.no_grad():
            found = at_size(model(image[None]), label).argmax(1)[0]
        right += (found == label).sum().item()
        counted += (label != 255).sum().item()
    assert right / counted > 0.95


# train.csv, and how long a training is


def test_the_table_tells_the_terms_and_the_share(run):
    table = pd.read_csv(run("table", told(12, weight="threshold_proportional", threshold=0.5)).table)
    columns = ["step", "labeled", "mixed", "share_above_threshold", "mixed_weight", "learning_rate"]
    assert table.columns.to_list() == [*columns, "images_per_second"] and table.step.to_list() == [10, 12]
    assert table.share_above_threshold.between(0, 1).all() and (table.mixed > 0).all()
    assert table.mixed_weight.to_list() == pytest.approx(table.share_above_threshold.to_list())
    full = {"name": "threshold_proportional", "pasted": "full"}
    other = pd.read_csv(run("full", told(12, weight=full, threshold=0.5, across="source_to_target")).table)
    assert (other.mixed_weight > other.share_above_threshold).all()


@pytest.mark.parametrize(
    ("epochs", "epochs_of", "batch_size", "steps"),
    [
        (2, "labeled", 4, 5),
        (2, "unlabeled", 4, 7),
        (2, "labeled", 5, 4),
        (2, "unlabeled", 5, 7),
        (0.1, "labeled", 4, 1),
    ],
)
def test_epochs_become_steps(run, epochs, epochs_of, batch_size, steps):
    """Of 5 labeled and 7 unlabeled images half a batch each; the odd one is labeled."""
    settings = tiny.stage(
        "mean_teacher_mixing", steps=None, epochs=epochs, epochs_of=epochs_of, batch_size=batch_size, teacher={}
    )
    assert pd.read_csv(run("epochs", settings).table).step.to_list() == [steps]


def test_what_the_algorithm_is_given(tmp_path, splits):
    """Draws of its own per seed, and shares that add up to one: from the labeled split, or as told."""
    paths, cpu = tiny.outputs(tmp_path, **splits), torch.device("cpu")
    counts = pd.read_csv(splits["distribution"]).pixels
    of_labels = inputs.given(told(seed=3, alignment={}), paths, None, cpu)
    assert of_labels.place == (3, 0)
    assert of_labels.distribution.tolist() == pytest.approx((counts / counts.sum()).to_list())
    numbers = tiny.outputs(tmp_path, **splits | {"distribution": None})
    given = inputs.given(told(alignment={"target": (1, 0, 3)}), numbers, None, cpu)
    assert given.distribution.tolist() == [0.25, 0, 0.75] and inputs.given(told(), numbers, None, cpu).place == (0, 0)
    assert inputs.given(told(), numbers, None, cpu).distribution is None


def test_without_a_teacher_or_unlabeled_images_it_says_so(run, tmp_path):
    with pytest.raises(UserError, match=r"train\.teacher: algorithm 'mean_teacher_mixing' learns from one"):
        run("none", tiny.stage("mean_teacher_mixing"))
    with pytest.raises(UserError, match=r"algorithm 'mean_teacher_mixing' needs the unlabeled split$"):
        run("none", told(), unlabeled=None)
    with pytest.raises(UserError, match=r"algorithm\.alignment\.target: 'labeled' needs the classes\.csv"):
        run("none", told(alignment={}), distribution=None)
    assert not (tmp_path / "none").exists()


# Sizes


@pytest.mark.parametrize("mixing", ["classmix", "cutmix", "cowmix", "none"])
@pytest.mark.parametrize(
    ("across", "batch_size"),
    [*product(["source_to_target"], [2, 3, 4, 16]), *product(["target_to_target"], [4, 5, 6, 16])],
)
def test_batches_of_all_sizes(run, across, batch_size, mixing):
    settings = told(2, batch_size=batch_size, across=across, mixing=mixing)
    assert np.isfinite(pd.read_csv(run("sizes", settings).table).mixed).all()


def test_one_unlabeled_image_a_step_is_refused_where_it_has_no_other(run, tmp_path):
    for batch_size in (2, 3):
        with pytest.raises(UserError, match=r"train\.batch_size: one unlabeled image a step cannot be pasted"):
            run("one", told(batch_size=batch_size))
    with pytest.raises(UserError, match=r"train\.batch_size: 1 leaves none for the stream 'unlabeled'"):
        run("one", told(batch_size=1))
    assert not (tmp_path / "one").exists()


@pytest.fixture(scope="module")
def smaller(tmp_path_factory):
    """Unlabeled images of another size than the labeled ones."""
    return tiny.split(tmp_path_factory.mktemp("data") / "smaller", ((24, 40),) * 4, seed=1, label_files=False)


KINDS = list(product(["target_to_target", "source_to_target"], ["separate", "joint"], ["classmix", "none"]))


@pytest.mark.parametrize(("across", "forwards", "mixing"), KINDS)
def test_splits_of_two_sizes_need_a_crop_only_where_they_meet(run, smaller, across, forwards, mixing):
    options = {"across": across, "forwards": forwards, "mixing": mixing}
    assert run("crop", told(2, **options), unlabeled=smaller).model.exists()
    if forwards == "separate" and (across == "target_to_target" or mixing == "none"):
        paths = run("whole", told(2, WHOLE, **options), unlabeled=smaller)
        assert {one["mixed"].shape for one in examples.read(paths.examples).values()} == {(24, 40, 3)}
    else:
        with pytest.raises(UserError, match=r"2 sizes \(24×40, 32×48, \.\.\.\).* set train\.augmentation\.crop, or a"):
            run("whole", told(2, WHOLE, **options), unlabeled=smaller)


def test_several_sizes_in_one_split_always_need_a_crop(run, tmp_path):
    several = tiny.split(tmp_path / "several", ((24, 40), (32, 48), (24, 40)), seed=1, label_files=False)
    with pytest.raises(UserError, match=r"images of 2 sizes \(24×40, 32×48"):
        run("whole", told(2, WHOLE), unlabeled=several)
    assert run("crop", told(2), unlabeled=several).model.exists()


# Bytes

RUNS = {
    "classmix": {},
    "teacher": {"teacher": {"decay": 0.8, "batch_norm": "own"}, "evaluate": "teacher"},
    "dacs": {"across": "source_to_target", "mixing": "cutmix", "forwards": "joint", "pseudo_labels": "soft"},
    "aligned": {"alignment": {"decay": 0.7}, "mixing": "cowmix", "weight": "pixelwise", "threshold": 0.4},
    "average": {
        "alignment": {"decay": 0.7, "average": "probabilities", "target": (3, 1, 2)},
        "teacher": {"decay": 0.8, "batch_norm": "student"},
        "evaluate": "teacher",
        "weight": "constant",
    },
}
runs = pytest.mark.parametrize("options", RUNS.values(), ids=RUNS)


def inputs_of(options):
    """The shares to align with are in the settings or in a file."""
    return {"distribution": None} if "alignment" not in options or "target" in options["alignment"] else {}


def results(paths):
    """All that a training leaves, but for how long it took."""
    table = pd.read_csv(paths.table).drop(columns="images_per_second")
    return paths.model.read_bytes(), paths.examples.read_bytes(), table.to_csv()


@runs
def test_equal_seeds_are_bit_equal(run, options):
    trained = {
        name: results(run(name, told(5, seed=seed, **options), machine, **inputs_of(options)))
        for name, seed, machine in (
            ("one", 0, tiny.NOW),
            ("again", 0, tiny.NOW),
            ("helped", 0, MachineSettings(workers=1)),
            ("other", 1, tiny.NOW),
        )
    }
    assert trained["one"] == trained["again"] == trained["helped"]
    assert all(one != other for one, other in zip(trained["one"], trained["other"], strict=True))


@runs
def test_killed_at_random_steps_it_ends_the_same(run, kill, monkeypatch, tmp_path, caplog, options):
    monkeypatch.setattr(stage, "LOGGED_EVERY", 2)
    settings = told(14, **options)
    whole = run("whole", settings, **inputs_of(options))
    draw = random.Random(str(options))
    for steps in [draw.randrange(2, 6) for _ in range(2)]:
        kill(steps)
        with pytest.raises(tiny.Killed):
            run("killed", settings, **inputs_of(options))
    assert not (tmp_path / "killed").exists()
    kill()
    caplog.set_level(logging.INFO)
    killed = run("killed", settings, **inputs_of(options))
    assert "going on from step" in caplog.text
    assert results(killed) == results(whole) and list(whole.resume.iterdir()) == []


# examples.h5


@pytest.mark.parametrize("across", ["target_to_target", "source_to_target"])
@pytest.mark.parametrize("mixing", ["classmix", "cutmix", "cowmix", "none"])
def test_mixed_images_are_kept_of_four_steps(run, across, mixing):
    paths = run("mixed", told(10, across=across, mixing=mixing, strong=STILL, augmentation={"scale": (0.5, 1.5)}))
    kept = examples.read(paths.examples)
    assert list(kept) == [2, 5, 8, 10] == sorted(examples.shown_steps(np.ones(10, bool)))
    for one in kept.values():
        assert set(one) == {"pasted", "below", "mask", "mixed", "label"}
        assert all(one[name].shape == (24, 24, 3) for name in ("pasted", "below", "mixed"))
        assert all(one[name].shape == (24, 24) for name in ("mask", "label"))
        assert all(array.dtype == np.uint8 for array in one.values()) and set(np.unique(one["mask"])) <= {0, 1}
        assert np.array_equal(one["mixed"], np.where(one["mask"][..., None], one["pasted"], one["below"]))
        assert set(np.unique(one["label"])) <= {0, 1, 2, 255}
        assert one["mask"].any() == (mixing != "none")
        assert mixing != "classmix" or set(np.unique(one["label"][one["mask"] == 1])) <= {0, 1, 2}
        assert mixing == "none" or not np.array_equal(one["pasted"], one["below"])
    assert len({one["mixed"].tobytes() for one in kept.values()}) == 4


@pytest.mark.parametrize(("steps", "kept"), [(0, []), (1, [1]), (2, [1, 2]), (3, [1, 2, 3])])
def test_short_trainings_keep_what_there_is(run, steps, kept):
    paths = run("short", told(steps))
    assert list(examples.read(paths.examples)) == kept


def test_strong_augmentation_is_in_what_is_kept(run):
    strong = {"blur_probability": 1, "jitter_probability": 1}
    one = examples.read(run("strong", told(1, strong=strong)).examples)[1]
    assert not np.array_equal(one["mixed"], np.where(one["mask"][..., None], one["pasted"], one["below"]))


def test_other_algorithms_and_unasked_trainings_keep_nothing(run, tmp_path):
    assert not (run("plain", told(2), examples=None).model.parent / "examples.h5").exists()
    assert examples.read(run("supervised", tiny.stage(steps=2)).examples) == {}
