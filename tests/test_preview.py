"""The images that people look at: which are chosen, and what models make of them."""

import json

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from selftrain.confidence import log_odds_of_coarse
from selftrain.data.tables import read_images
from selftrain.errors import UserError
from selftrain.inspection.artifact import inspect
from selftrain.predict.forward import load_predictor
from selftrain.preview.choice import Worth, evenly_spaced
from selftrain.preview.file import Preview
from selftrain.preview.stage import preview
from selftrain.settings.prediction import InferenceSettings, PreviewSettings

SIZES = [(32, 48), (20, 30), (32, 48), (32, 48), (48, 32)]
SHOWN = arrays.arrays(bool, st.tuples(st.integers(1, 8), st.integers(1, 5)))


@given(SHOWN)
def test_rarity_by_its_definition(shown):
    found = Worth.of(np.zeros(len(shown)), shown).rarity
    for image, classes in enumerate(shown):
        slow = sum(1 / sum(other[at] for other in shown) for at, there in enumerate(classes) if there)
        assert found[image] == pytest.approx(slow, rel=1e-6)


@given(SHOWN, st.data())
def test_the_first_are_the_least_sure_and_the_rarest_in_turn(shown, data):
    confidence = np.array(data.draw(st.permutations(range(len(shown)))), float)
    worth, wanted = Worth.of(confidence, shown), data.draw(st.integers(0, 9))
    first = worth.first(wanted)
    assert len(first) == len(set(first)) == min(wanted, len(shown))
    if wanted:
        assert first[0] == confidence.argmin()
    if wanted > 1 and len(shown) > 1:
        assert {worth.rarity.argmax(), confidence.argmin(), confidence.argsort()[1]} >= set(first[:2])
    assert worth.first(len(shown))[:wanted] == first
    assert worth.at(first).rarity.tolist() == worth.rarity[first].tolist()


def settings(images=3, **options):
    told = {"images": images, "evaluation": InferenceSettings(), "seed": 0, "batch_size": 2, "read": tiny.READ}
    return PreviewSettings(**told | options)


@pytest.fixture(scope="module")
def unlabeled(tmp_path_factory):
    return tiny.split(tmp_path_factory.mktemp("data") / "unlabeled", SIZES, label_files=False)


@pytest.fixture
def models(tmp_path):
    paths = {f"pretrained/{name}/seed-0": tmp_path / f"{name}.safetensors" for name in ("one", "other")}
    for seed, path in enumerate(paths.values()):
        tiny.save_model(path, seed=seed)
    return paths


def labels_of(path, names, odd):
    """Pseudo-labels in which one image alone shows the last class."""
    labels = [np.zeros(size, np.uint8) for size in SIZES]
    labels[odd][0] = 2
    return tiny.write_pseudo_labels(path, names, labels)


def test_every_model_predicts_the_chosen_images_as_evaluation_does(tmp_path, unlabeled, models):
    table = read_images(unlabeled)
    file = labels_of(tmp_path / "pseudo_labels.h5", table.image.to_list(), odd=3)
    preview(settings(), unlabeled, models, [file], tmp_path / "preview.h5")
    with Preview(tmp_path / "preview.h5") as seen:
        assert seen.models == list(models) and seen.classes == list(tiny.CLASSES)
        assert seen.images == [table.image[at] for at in (0, 3, 1)], "all alike in confidence, the rarest second"
        assert seen.worth.rarity.argmax() == 1
        for folder, path in models.items():
            predictor = load_predictor(path, InferenceSettings(), "cpu", classes=tiny.CLASSES)
            for position, name in enumerate(seen.images):
                size = SIZES[table.image.to_list().index(name)]
                pixels = tiny.pixels_of(unlabeled, name)
                right = predictor(pixels, [name], size).on_host([name])
                assert (seen.predicted(folder, position) == right.classes[0]).all()
        known = inspect(tmp_path / "preview.h5")
        assert known["class"].tolist() == list(tiny.CLASSES)
        assert known[list(models)].sum().tolist() == pytest.approx([1, 1])
        assert inspect(tmp_path / "preview.h5", images=True).image.tolist() == seen.images


def test_without_pseudo_labels_images_are_evenly_spaced_and_told_apart_by_the_first_model(tmp_path, unlabeled, models):
    preview(settings(), unlabeled, models, [], tmp_path / "preview.h5")
    names = read_images(unlabeled).image
    with Preview(tmp_path / "preview.h5") as seen:
        assert seen.images == [names[at] for at in evenly_spaced(len(names), 3)]
        planes = seen._file[f"models/{next(iter(models))}/confidence"]
        for position, (height, width) in enumerate(seen.shapes):
            mean = log_odds_of_coarse(planes[position, :height, :width]).mean()
            assert mean <= seen.worth.confidence[position] <= mean + 0.25, "a byte stands for a quarter"


def test_more_images_than_there_are_are_all(tmp_path, unlabeled, models):
    preview(settings(images=99), unlabeled, models, [], tmp_path / "preview.h5")
    with Preview(tmp_path / "preview.h5") as seen:
        assert sorted(seen.images) == sorted(read_images(unlabeled).image)


def test_pseudo_labels_of_other_images_are_refused(tmp_path, unlabeled, models):
    file = labels_of(tmp_path / "pseudo_labels.h5", [f"other-{at}" for at in range(len(SIZES))], odd=0)
    with pytest.raises(UserError, match="not those of the unlabeled split; run label again"):
        preview(settings(), unlabeled, models, [file], tmp_path / "preview.h5")
    assert not (tmp_path / "preview.h5").exists()


def test_the_graph_previews_the_first_seed_before_and_after(tmp_path):
    from selftrain.graph import Graph

    streets = {"streets": {"domain": "real", "count": 2, "seed": 1, "size": [32, 64]}}
    task = {"classes": "camvid", "labeled": streets, "unlabeled": streets, "evaluation": {"val": streets}}
    rounds = {"policy": "cbst", "rounds": [{"portion": 0.2}, {"portion": 0.5}]}
    config = {
        "results": str(tmp_path),
        "seeds": [3, 1],
        "tasks": {"tiny": task, "alone": task},
        "pretrain": {"a": {}, "b": {"tasks": ["tiny"]}},
        "experiments": {"one": rounds | {"tasks": ["tiny"]}, "two": rounds | {"tasks": ["tiny"], "pretrain": "b"}},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    graph = Graph.load(tmp_path / "config.json")
    assert [model.folder for model in graph.previewed("tiny")] == [
        *("pretrained/a/seed-3", "pretrained/b/seed-3", "one/seed-3/round-2", "two/seed-3/round-2"),
    ]
    assert [model.folder for model in graph.previewed("alone")] == ["pretrained/a/seed-3"]
    assert [file.split("tiny/")[1] for file in graph.preview_files("tiny")["labels"]] == [
        f"{name}/seed-3/round-2/pseudo_labels.h5" for name in ("one", "two")
    ]
    none = Graph.load(tmp_path / "config.json", over={"report": {"images": 0}})
    assert all(task.preview is None for task in none.report().tasks)
    assert not [file for file in none.report_images() if file.endswith("preview.h5")]
    assert none.summary() == graph.summary(), "and the scores do not hang on it"
