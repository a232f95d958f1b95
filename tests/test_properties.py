"""What holds for every input, tried on many; what has a home elsewhere is tested there."""

import json
from copy import deepcopy

import h5py
import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from test_settings import GOOD, good

from selftrain import draws
from selftrain.confidence import BINS
from selftrain.data.reading import read_label
from selftrain.errors import UserError
from selftrain.label.stage import Rule
from selftrain.predict.store import Predictions, read_histograms
from selftrain.predict.writer import PredictionWriter
from selftrain.select.policies import decide
from selftrain.settings.config import Config
from selftrain.settings.config_file import load, parse
from selftrain.settings.data import ReadSettings
from selftrain.settings.selection import SelectSettings

CLASSES = ("a", "b", "c")
TRIED = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
EVERY = pytest.mark.parametrize("policy", ["st", "cbst", "da", "dars"])


def images(seed, count):
    """Predictions of some images of a few confidences, so that there are ties: names, classes, bins."""
    draw = np.random.default_rng(seed)
    shapes = [(int(draw.integers(1, 6)), int(draw.integers(1, 6))) for _ in range(count)]
    return [
        (f"image {number}", draw.choice(np.array([0, 1, 2, 255], np.uint8), shape), draw.integers(0, 9, shape) * 4000)
        for number, shape in enumerate(shapes)
    ]


def histogram(predicted):
    counts = np.zeros((len(CLASSES), BINS), np.int64)
    for _, classes, bins in predicted:
        np.add.at(counts, (classes[classes < 255], bins[classes < 255]), 1)
    return counts


def labels(policy, portion, predicted, prior):
    """The pseudo-labels of each image, by its name."""
    cut = decide(SelectSettings(classes=CLASSES, policy=policy, portion=portion), histogram(predicted), prior)
    rule = Rule.of(pd.DataFrame({"threshold_bin": cut.threshold, "kept_fraction": cut.kept_fraction}))
    return {name: rule.apply(classes, bins, draws.image_key(0, 1, name)) for name, classes, bins in predicted}


@EVERY
@TRIED
@given(seed=st.integers(0, 10**6), count=st.integers(1, 5), portions=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_a_larger_portion_keeps_all_that_a_smaller_one_does(policy, seed, count, portions):
    predicted, prior = images(seed, count), np.array([0.5, 0.3, 0.2])
    few, many = (labels(policy, portion, predicted, prior) for portion in sorted(portions))
    for name, classes, _ in predicted:
        assert ((few[name] == 255) | (few[name] == many[name]) | (policy == "dars")).all()
        assert ((many[name] == 255) | (many[name] == classes)).all()
    if policy == "dars":  # which drops at random, so its counts alone grow, by what is expected of them
        cuts = [
            decide(SelectSettings(classes=CLASSES, policy=policy, portion=portion), histogram(predicted), prior)
            for portion in sorted(portions)
        ]
        kept = [cut.selected(histogram(predicted)) * cut.kept_fraction for cut in cuts]
        assert (kept[0] <= kept[1] + 1e-9).all()


@EVERY
@TRIED
@given(seed=st.integers(0, 10**6), count=st.integers(1, 5), portion=st.floats(0, 1), order=st.randoms())
def test_the_order_of_images_changes_no_label(policy, seed, count, portion, order):
    predicted, prior = images(seed, count), np.array([0.5, 0.3, 0.2])
    shuffled = list(predicted)
    order.shuffle(shuffled)
    one, other = (labels(policy, portion, some, prior) for some in (predicted, shuffled))
    assert all((one[name] == other[name]).all() for name in one)


@TRIED
@given(seed=st.integers(0, 10**6), count=st.integers(1, 6), at=st.integers(0, 6))
def test_predictions_are_read_as_they_were_written_and_counted_however_sharded(tmp_path, seed, count, at):
    predicted = images(seed, count)
    shards = [part for part in (predicted[:at], predicted[at:]) if part]
    paths = [tmp_path / f"{number}.h5" for number in range(len(shards))]
    for path, part in zip(paths, shards, strict=True):
        about = {"names": [name for name, *_ in part], "shapes": [classes.shape for _, classes, _ in part]}
        with PredictionWriter(path, **about, canvas=(7, 8), classes=CLASSES, attributes={}) as writer:
            for position, (_, classes, bins) in enumerate(part):
                writer.write(position, classes, bins.astype(np.uint16))
    read = []
    for path in paths:
        with Predictions(path, CLASSES) as shard:
            read += [(name, *shard.read(position)) for position, name in enumerate(shard.images)]
    for (name, classes, bins), (again, *planes) in zip(predicted, read, strict=True):
        assert name == again and (planes[0] == classes).all() and (planes[1] == bins).all()
    assert (read_histograms(paths) == histogram(predicted)).all()


@TRIED
@given(
    known=st.dictionaries(st.integers(0, 600), st.sampled_from([0, 1, 2, 255]), min_size=1, max_size=6),
    ignore=st.integers(3, 600),
    seed=st.integers(0, 10**6),
    stray=st.one_of(st.none(), st.integers(0, 700)),
)
def test_ids_are_mapped_one_by_one(tmp_path, known, ignore, seed, stray):
    told = ReadSettings(
        classes=CLASSES, ignore_index=ignore, ids={raw: ignore if to == 255 else to for raw, to in known.items()}
    )
    raw = np.random.default_rng(seed).choice([*known, ignore, *([] if stray is None else [stray])], (5, 6))
    Image.fromarray(raw.astype(np.uint16)).save(tmp_path / "a.png")
    wanted = {ignore: 255} | known
    if set(raw.ravel().tolist()) <= wanted.keys():
        assert (read_label(tmp_path / "a.png", told) == np.vectorize(wanted.get)(raw)).all()
    else:
        with pytest.raises(UserError, match=f"label ids {stray} are neither in 'ids'"):
            read_label(tmp_path / "a.png", told)


NAMES = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1).filter(str.strip)
CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "seeds": st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True),
        "shards": st.integers(1, 9),
        "train.steps": st.integers(0, 10**6),
        "train.optimizer": st.sampled_from(["sgd", "adamw"]).map(lambda name: {"name": name}),
        "train.optimizer.lr": st.floats(1e-12, 10),
        "train.augmentation": st.tuples(st.floats(0.1, 1), st.floats(1, 9)).map(lambda scale: {"scale": list(scale)}),
        "experiments.dars.rounds.0.portion": st.floats(0, 1),
        "experiments.st.policy.threshold": st.floats(1e-9, 1 - 1e-9),
        "tasks.town.classes": st.lists(NAMES, min_size=3, max_size=5, unique=True),
        "tasks.town.labeled.ids": st.dictionaries(st.integers(0, 65535), st.sampled_from([0, 2, 255]), max_size=4),
        "tasks.town.labeled.size": st.one_of(
            st.integers(1, 99), st.tuples(st.integers(1, 99), st.integers(1, 99)).map(list)
        ),
        "prediction": st.fixed_dictionaries({"flip": st.booleans(), "scales": st.lists(st.floats(0.1, 4), min_size=1)}),
        "model.decoder": st.sampled_from(["light", "aspp", {"name": "pyramid_pooling", "bins": [3, 1]}]),
    },
)


@TRIED
@given(changes=CHANGES)
def test_a_config_survives_json_and_yaml(changes):
    config = parse(good(*sorted(changes.items())))
    assert Config.model_validate_json(config.model_dump_json()) == config
    assert parse(json.loads(config.model_dump_json())) == config
    assert parse(yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json")))) == config


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.integers(0, 10**6), st.text(max_size=3) | st.sampled_from("{}[]:&*!|-")), max_size=5)
)
def test_a_damaged_config_is_read_or_refused_but_never_a_traceback(tmp_path, changes):
    text = yaml.safe_dump(deepcopy(GOOD))
    for at, put in changes:
        text = text[: at % len(text)] + put + text[at % len(text) + 1 :]
    path = tmp_path / "config.yaml"
    path.write_text(text, "utf-8", errors="surrogatepass")
    try:
        assert load(path).tasks
    except UserError as error:
        assert str(path) in str(error)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(["images", "shapes", "class", "histogram", "votes"]), seed=st.integers(0, 99))
def test_a_dataset_that_is_another_is_refused_by_name(tmp_path, name, seed):
    """Of another type, number of dimensions or length."""
    path, draw = tmp_path / "p.h5", np.random.default_rng(seed)
    about = {"names": ["a", "b"], "shapes": [(2, 3)] * 2, "canvas": (2, 3), "classes": CLASSES, "attributes": {}}
    with PredictionWriter(path, **about) as writer:
        for position in range(2):
            writer.write(position, np.zeros((2, 3), np.uint8), np.zeros((2, 3), np.uint16))
    with h5py.File(path, "r+") as file:
        shape, dtype = file[name].shape, file[name].dtype
        del file[name]
        kind = draw.integers(3)
        shape = {0: shape, 1: (*shape, 1), 2: (shape[0] + 1, *shape[1:])}[int(kind)]
        file.create_dataset(name, shape, np.complex64 if kind == 0 else dtype)
    with pytest.raises(UserError, match=r"p\.h5: broken inside \(.*; run predict again"):
        Predictions(path)
