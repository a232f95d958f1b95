import hashlib
import json
import multiprocessing
import pickle

import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import histogram_of

from selftrain import draws, hdf5
from selftrain.confidence import BINS, coarse, log_odds_of, log_odds_of_coarse
from selftrain.errors import UserError
from selftrain.label.merge import CLASS_COLUMNS, merge
from selftrain.label.pseudo_labels import PseudoLabels
from selftrain.label.stage import label
from selftrain.predict.store import Predictions, read_histograms
from selftrain.predict.writer import PredictionWriter
from selftrain.select.cut import read_cut
from selftrain.select.stage import select
from selftrain.settings.selection import LabelSettings, SelectSettings

CLASSES = ("road", "sky", "Füße", "bus")
PRIOR = [0.6, 0.3, 0.1, 0.0]
MEAN_SIZE = [0.5, 0.4, 0.2, 0.0]


def images(count, seed=0, size=(40, 60)):
    """Random predictions of images of several sizes; confidence is high, class 3 never predicted."""
    random = np.random.default_rng(seed)
    for i in range(count):
        shape = (size[0] - i % 3, size[1] - 2 * (i % 2))
        classes = random.choice(np.array([0, 1, 2, 255], np.uint8), shape, p=[0.55, 0.3, 0.1, 0.05])
        bins = np.clip(random.normal(17_200, 4800, shape), 0, BINS - 1).astype(np.uint16)
        yield f"image_{i}", classes, bins


def write_shard(path, items, canvas, model="0f" * 8, classes=CLASSES):
    names, shapes = [name for name, *_ in items], [item[1].shape for item in items]
    about = {"names": names, "shapes": shapes, "canvas": canvas, "classes": classes}
    with PredictionWriter(path, **about, attributes={"model": model, "mode": "single"}) as writer:
        for position, (_, classes, bins) in enumerate(items):
            writer.write(position, classes, bins)
    return path


def run(folder, items, shards=1, canvas=(40, 60), policy="dars", portion=0.3, seed=0, resolution="float16"):
    """Predictions to pseudo_labels.h5, in `shards` parts, some of which may be empty."""
    folder.mkdir(exist_ok=True)
    parts = np.array_split(np.arange(len(items)), shards)
    predictions = [write_shard(folder / f"p{i}.h5", [items[j] for j in part], canvas) for i, part in enumerate(parts)]
    told = SelectSettings(classes=CLASSES, policy={"name": policy, "resolution": resolution}, portion=portion)
    how = LabelSettings(seed=seed, round=1, select=told)
    known = pd.DataFrame({"class": CLASSES, "share": PRIOR, "images": 1, "mean_size": MEAN_SIZE})
    known.to_csv(folder / "classes.csv", index=False)
    cut, output = folder / "cut.csv", folder / "pseudo_labels.h5"
    select(told, predictions, folder / "classes.csv", cut)
    labels = [folder / f"l{i}.h5" for i in range(shards)]
    for prediction, one in zip(predictions, labels, strict=True):
        label(how, prediction, cut, one)
    merge(how, labels, predictions, cut, output, folder / "pseudo_labels.csv")
    return output, how, labels, predictions


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("count", [7, 3])
def test_one_and_five_shards_give_the_same_bytes(tmp_path, count):
    items = list(images(count))
    one, *_ = run(tmp_path / "one", items)
    five, *_ = run(tmp_path / "five", items, shards=5)
    assert digest(one) == digest(five)
    assert digest(tmp_path / "one/pseudo_labels.csv") == digest(tmp_path / "five/pseudo_labels.csv")


def test_tiles_of_large_images_are_copied(tmp_path):
    items = list(images(3, size=(1030, 1100)))
    one, *_ = run(tmp_path / "one", items, canvas=(1030, 1400))
    two, *_ = run(tmp_path / "two", items, canvas=(1030, 1400), shards=2)
    assert digest(one) == digest(two)
    with h5py.File(one) as file:
        assert file["label"].chunks == (1, 515, 700)
    labels = PseudoLabels(one)
    for name, classes, bins in items:
        kept = labels.label(name) != 255
        assert (labels.label(name)[kept] == classes[kept]).all()
        assert (labels.confidence(name) == log_odds_of_coarse(coarse(bins))).all()


@pytest.mark.parametrize("policy", ["st", "cbst", "da", "dars"])
@pytest.mark.parametrize("portion", [0, 0.3, 1])
def test_labels_are_the_cut_applied(tmp_path, policy, portion):
    items = list(images(4))
    output, *_ = run(tmp_path, items, shards=2, policy=policy, portion=portion)
    cut = read_cut(tmp_path / "cut.csv")
    labels = PseudoLabels(output)
    limit = np.append(cut.threshold_bin.to_numpy(), [BINS] * 252)
    for name, classes, bins in items:
        reaches = bins >= limit[classes]
        got = labels.label(name)
        assert got.shape == classes.shape
        assert ((got == classes) | (got == 255)).all() and (got[~reaches] == 255).all()
        if policy != "dars":
            assert (got[reaches] == classes[reaches]).all()
    assert (labels.counts.sum(0) <= cut.selected).all()


def test_kept_fraction_is_met_over_all_selected_pixels(tmp_path):
    output, *_ = run(tmp_path, list(images(30, size=(60, 80))), canvas=(60, 80))
    cut, labels = read_cut(tmp_path / "cut.csv"), PseudoLabels(output)
    assert (cut.kept_fraction[:2] < 0.9).all()
    deviation = np.sqrt(cut.selected * cut.kept_fraction * (1 - cut.kept_fraction))
    assert (np.abs(labels.counts.sum(0) - cut.selected * cut.kept_fraction) <= 5 * deviation + 1).all()
    # Each image gives its fair part: nothing is sampled per image.
    for position, (_, classes, bins) in enumerate(images(30, size=(60, 80))):
        n = ((classes == 0) & (bins >= cut.threshold_bin[0])).sum()
        s = cut.kept_fraction[0]
        assert abs(labels.counts[position, 0] - n * s) <= 5 * np.sqrt(n * s * (1 - s)) + 1


def test_seed_and_round_change_the_draws_alone(tmp_path):
    items = list(images(2))
    first, again, other = (
        run(tmp_path / name, items, seed=seed)[0] for name, seed in zip("abc", (0, 0, 1), strict=True)
    )
    assert digest(first) == digest(again)
    a, b = PseudoLabels(first), PseudoLabels(other)
    assert (a.label(0) != b.label(0)).any() and a.cut.equals(b.cut)


@pytest.mark.parametrize("items", [[("only", np.full((5, 7), 255, np.uint8), np.zeros((5, 7), np.uint16))]])
def test_one_image_all_ignored(tmp_path, items):
    output, *_ = run(tmp_path, items, canvas=(5, 7))
    labels = PseudoLabels(output)
    assert (labels.label(0) == 255).all() and labels.histogram.sum() == 0
    assert (labels.classes.pixels == 0).all()
    assert np.isnan(labels.attributes["kl_divergence"])


def test_the_file_stands_alone(tmp_path):
    """Everything is there for plain h5py."""
    items = list(images(5))
    output, how, *_ = run(tmp_path, items, shards=2)
    with h5py.File(output) as file:
        assert file["label"].dtype == file["confidence"].dtype == np.uint8
        assert file["label"].shape == (5, 40, 60) and file["label"].chunks == (1, 40, 60)
        assert (file["label"].compression, file["label"].compression_opts) == ("gzip", 1)
        assert (file["label"][2, 38:] == 255).all() and (file["label"][1, :, 58:] == 255).all()
        assert file["images"].asstr()[:].tolist() == [name for name, *_ in items]
        assert file["shapes"][:].tolist() == [list(item[1].shape) for item in items]
        assert file["histogram"].shape == (4, BINS)
        assert file["cut"].dtype.names[:2] == ("class", "predicted")
        assert file["classes"]["class"][2].decode() == "Füße"
        about = dict(file.attrs)
    assert about["format"] == "selftrain-pseudo-labels" and about["version"] == 5
    assert (about["method"], about["round"], about["portion"], about["seed"]) == ("dars", 1, 0.3, 0)
    assert json.loads(about["classes"]) == list(CLASSES) and about["model"] == "0f" * 8
    assert LabelSettings.model_validate_json(about["settings"]) == how


def test_reader(tmp_path):
    items = list(images(5))
    output, *_ = run(tmp_path, items)
    labels = PseudoLabels(output)
    assert len(labels) == 5 and labels.weak_labels is None
    assert labels.classes.columns.to_list() == CLASS_COLUMNS
    assert (labels.classes.changed == 0).all() and labels.classes.weak_images.isna().all()
    assert labels.classes["class"].tolist() == list(CLASSES)
    assert labels.classes.pixels.tolist() == labels.counts.sum(0).tolist()
    pd.testing.assert_frame_equal(
        labels.classes,
        pd.read_csv(
            tmp_path / "pseudo_labels.csv",
            keep_default_na=False,
            na_values=dict.fromkeys(("agreeing", "threshold_log_odds", "threshold_probability", "weak_images"), ""),
            float_precision="round_trip",
        ),
        check_dtype=False,
    )
    pd.testing.assert_frame_equal(labels.cut, read_cut(tmp_path / "cut.csv"), check_dtype=False)
    assert labels.cut.mean_size.tolist() == MEAN_SIZE and labels.cut.prior.tolist() == PRIOR
    table = labels.images
    for row, (name, classes, bins) in zip(table.itertuples(), items, strict=True):
        got = labels.label(name)
        assert row.mean_confidence == pytest.approx(log_odds_of(bins).mean(), abs=1e-4)
        assert (row.image, row.height, row.width) == (name, *classes.shape)
        assert row.labeled == (got != 255).sum() == table.loc[row.Index, list(CLASSES)].sum()
        assert row.labeled_share == pytest.approx((got != 255).mean())
    assert (labels.label(-1) == labels.label("image_4")).all()
    with pytest.raises(IndexError):
        labels.label(5)


def test_reader_is_opened_in_each_process(tmp_path):
    output, *_ = run(tmp_path, list(images(3)))
    labels = PseudoLabels(output)
    expected = labels.label(1)
    assert pickle.loads(pickle.dumps(labels))._opened is None
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            assert (pool.apply(labels.label, (1,)) == expected).all()


def test_shards_that_do_not_belong_together(tmp_path):
    items = list(images(4))
    _, how, labels, predictions = run(tmp_path, items, shards=2)

    def joined(labels, predictions):
        merge(how, labels, predictions, tmp_path / "cut.csv", tmp_path / "joined.h5", tmp_path / "joined.csv")

    with pytest.raises(UserError, match="1 shards of labels for 2"):
        joined(labels[:1], predictions)
    with pytest.raises(UserError, match="has other images"):
        joined(labels[::-1], predictions)
    for change, what in (({"canvas": (50, 60)}, "canvas"), ({"canvas": (40, 60), "model": "ab"}, "model")):
        other = write_shard(tmp_path / "other.h5", items[2:], **change)
        label(how, other, tmp_path / "cut.csv", tmp_path / "other_labels.h5")
        with pytest.raises(UserError, match=f"differ in their {what}"):
            joined([labels[0], tmp_path / "other_labels.h5"], [predictions[0], other])
    moved = [(name, classes, bins ^ 1) for name, classes, bins in items[2:]]  # as many pixels of each class
    other = write_shard(tmp_path / "other.h5", moved, (40, 60))
    with pytest.raises(UserError, match=r"l1\.h5: is of another round, or of other predictions or another cut than"):
        joined(labels, [predictions[0], other])
    other = write_shard(tmp_path / "other.h5", items[2:], (40, 60), classes=CLASSES[::-1])
    with pytest.raises(UserError, match="predicts"):
        joined(labels, [predictions[0], other])
    with pytest.raises(UserError, match="predicts"):
        label(how, other, tmp_path / "cut.csv", tmp_path / "other_labels.h5")
    assert not list(tmp_path.glob("joined*")) and not list(tmp_path.glob(".*"))


def test_chunks_of_another_layout_are_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        one = file.create_dataset("one", (2, 8, 8), "u1", chunks=(1, 8, 8), compression="gzip")
        two = file.create_dataset("two", (2, 8, 8), "u1", chunks=(1, 4, 8), compression="gzip")
        with pytest.raises(UserError, match="other chunks"):
            hdf5.copy_chunks(one, two, 0)


@given(st.tuples(st.integers(1, 40), st.integers(1, 40)), st.sampled_from([np.uint8, np.uint16]), st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_hdf5_reads_the_planes_that_were_compressed_without_it(tmp_path, monkeypatch, canvas, dtype, data):
    monkeypatch.setattr(hdf5.planes, "TILE", 16)  # so that canvases have several chunks, the last ones hanging over
    height, width = (data.draw(st.integers(1, side)) for side in canvas)
    plane = np.random.default_rng(height).integers(0, np.iinfo(dtype).max, (height, width), dtype)
    with h5py.File(tmp_path / "planes.h5", "w") as file:
        planes = hdf5.create_planes(file, "planes", dtype, (3, *canvas), 7)
        for position, written in ((2, plane.T.copy().T), (0, plane.astype(np.int64))):
            hdf5.write_plane(planes, position, written)
    with h5py.File(tmp_path / "planes.h5") as file:
        read = file["planes"][:]
    assert (read[[0, 2], :height, :width] == plane).all() and (read[1] == 7).all()
    assert (read[:, height:] == 7).all() and (read[:, :, width:] == 7).all()


def test_store_gives_back_what_was_written(tmp_path):
    items = list(images(4))
    path = write_shard(tmp_path / "p.h5", items, (44, 64))
    with Predictions(path, CLASSES) as shard:
        assert len(shard) == 4 and shard.canvas == (44, 64) and shard.attributes["mode"] == "single"
        for position, (_, classes, bins) in enumerate(items):
            got_classes, got_bins = shard.read(position)
            assert (got_classes == classes).all() and (got_bins == bins).all()
    expected = sum(histogram_of(classes, bins, 4) for _, classes, bins in items)
    assert (read_histograms([path]) == expected).all()
    assert expected.sum() == sum((classes != 255).sum() for _, classes, _ in items)
    with h5py.File(path) as file:
        assert (file["class"][:, 40:] == 255).all() and file["class"].compression == "gzip"


def test_a_broken_store_is_named(tmp_path):
    items = list(images(2))
    path = write_shard(tmp_path / "p.h5", items, (40, 60))
    with pytest.raises(UserError, match=r"absent\.h5: no such file; run predict again"):
        Predictions(tmp_path / "absent.h5")
    (tmp_path / "short.h5").write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"short\.h5: not a whole HDF5 file.*run predict again"):
        Predictions(tmp_path / "short.h5")
    with h5py.File(path, "a") as file:
        file.attrs["version"] = 99
    with pytest.raises(UserError, match="version 99, not selftrain-predictions version 2; run predict again"):
        Predictions(path)
    with h5py.File(path, "a") as file:
        del file.attrs["format"]
    with pytest.raises(UserError, match="without a format name"):
        read_histograms([path])


def test_half_a_store_gets_no_name(tmp_path):
    about = {"names": ["a", "b"], "shapes": [(2, 2)] * 2, "canvas": (2, 2), "classes": CLASSES, "attributes": {}}
    plane = np.zeros((2, 2), np.uint8)
    path = tmp_path / "p.h5"
    with pytest.raises(ValueError, match="1 images were not"), PredictionWriter(path, **about) as writer:
        writer.write(0, plane, plane)
    with pytest.raises(ValueError, match="a is 2x2"), PredictionWriter(path, **about) as writer:
        writer.write(0, plane[:1], plane)
    with pytest.raises(KeyboardInterrupt), PredictionWriter(path, **about):
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("canvas", "chunk"),
    [((512, 1024), (1, 512, 1024)), ((1080, 1920), (1, 540, 960)), ((1, 3000), (1, 1, 1000)), ((1025, 5), (1, 513, 5))],
)
def test_chunk_is_the_image_or_even_tiles(canvas, chunk):
    assert hdf5.chunk_shape(canvas) == chunk


@settings(deadline=None)
@given(st.integers(0, 2**40), st.integers(1, 9), st.text(max_size=9))
def test_draws_are_splitmix64(seed, round_, name):
    """Against the published recurrence in Python's integers."""
    key, mask = draws.image_key(seed, round_, name), 2**64 - 1
    state, expected = int(key), []
    for _ in range(5):
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        expected.append((z ^ (z >> 31)) >> 11)
    assert draws.draw(key, np.arange(5)).tolist() == expected
    assert draws.draw(key, np.array([3])).tolist() == expected[3:4]


def test_draws_are_uniform_and_differ_between_images():
    pixels = np.arange(200_000)
    a, b = (draws.draw(draws.image_key(0, 1, name), pixels) / 2**53 for name in ("a", "b"))
    assert np.abs(np.histogram(a, 20, (0, 1))[0] - 10_000).max() < 5 * np.sqrt(10_000)
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.02 and abs(np.corrcoef(a[1:], a[:-1])[0, 1]) < 0.02
    assert draws.limit(np.array([0.0, 1.0])).tolist() == [0, 2**53]
