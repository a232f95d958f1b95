"""A person's review of pseudo-labels: what is left out or replaced, in every round, and what the file keeps of it."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from project import Project, tiny_config
from test_label import CLASSES, images, run

from selftrain.data.review import check_review, read_mask, read_review, write_review
from selftrain.errors import UserError
from selftrain.graph import Graph
from selftrain.inspection.artifact import inspect
from selftrain.label.masks import export_labels
from selftrain.label.merge import merge
from selftrain.label.pseudo_labels import PseudoLabels
from selftrain.label.stage import label
from selftrain.settings.data import PixelSettings, ReadSettings, ReviewSettings

READ = ReadSettings(classes=CLASSES, ignore_index=254)
SIZES = {f"image_{position}": classes.shape for position, (_, classes, _) in enumerate(images(4))}


def save_mask(path, shape, value=1):
    Image.fromarray(np.full(shape, value, np.uint8)).save(path)


@pytest.fixture
def reviewed(tmp_path):
    """A run of four images in two shards, and a review of two of them."""
    run(tmp_path, list(images(4)), shards=2)
    export_labels(tmp_path / "pseudo_labels.h5", tmp_path / "masks", images=["image_3"])
    mask = np.array(Image.open(tmp_path / "masks/image_3.png"))
    mask[:5] = 3  # a class that is never predicted
    Image.fromarray(mask).save(tmp_path / "masks/image_3.png")
    table = "image,exclude,mask,reason\nimage_0,yes,,glare\nimage_3,no,masks/image_3.png,\n"
    (tmp_path / "review.csv").write_text(table)
    return tmp_path


def relabel(folder, settings, review):
    shards = [folder / f"r{number}.h5" for number in range(2)]
    predictions = [folder / f"p{number}.h5" for number in range(2)]
    for prediction, shard in zip(predictions, shards, strict=True):
        label(settings, prediction, folder / "cut.csv", shard, review=review)
    merge(settings, shards, predictions, folder / "cut.csv", folder / "again.h5", folder / "again.csv", review)
    return PseudoLabels(folder / "again.h5")


def check(folder):
    names = [[name, f"{name}.png", "", *SIZES[name], "", ""] for name in SIZES]
    columns = ["image", "image_file", "label_file", "height", "width", "image_digest", "label_digest"]
    pd.DataFrame(names, columns=columns).to_csv(folder / "images.csv", index=False)
    settings = ReviewSettings(table=str(folder / "review.csv"), read=READ)
    write_review(settings, folder / "images.csv", folder / "checked.csv")
    return folder / "checked.csv"


def test_an_image_is_left_out_another_replaced_and_the_rest_stays(reviewed):
    before = PseudoLabels(reviewed / "pseudo_labels.h5")
    after = relabel(reviewed, _settings_of(before), check(reviewed))
    assert (after.label("image_0") == 255).all()
    assert np.array_equal(after.label("image_3"), np.array(Image.open(reviewed / "masks/image_3.png")))
    for name in ("image_1", "image_2"):
        assert np.array_equal(after.label(name), before.label(name))
    assert after.counts[3, 3] == 5 * after.shapes[3, 1] and not after.counts[0].any()
    assert after.classes.pixels.tolist() == after.counts.sum(0).tolist()
    assert after.classes.changed[3] == after.counts[3, 3] and not before.classes.changed.any()


def test_the_file_keeps_who_was_reviewed_and_why(reviewed):
    before = PseudoLabels(reviewed / "pseudo_labels.h5")
    after = relabel(reviewed, _settings_of(before), check(reviewed))
    one, two = json.loads(after.attributes["review"])
    assert one == {"image": "image_0", "review": "excluded", "mask": "", "digest": "", "reason": "glare"}
    assert two["mask"] == "image_3.png" and len(two["digest"]) == 16
    assert after.images.review.tolist() == ["excluded", "", "", "mask"]
    assert "review" not in before.images and "review" not in before.attributes
    assert inspect(reviewed / "checked.csv").reason.tolist() == ["glare", ""]


def test_an_edited_mask_makes_another_table(reviewed):
    first = check(reviewed).read_bytes()
    save_mask(reviewed / "masks/image_3.png", SIZES["image_3"])
    assert check(reviewed).read_bytes() != first


def _settings_of(labels):
    from selftrain.settings.selection import LabelSettings

    return LabelSettings.model_validate_json(labels.attributes["settings"])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("image,exclud\na,yes\n", r"unknown column 'exclud'; did you mean 'exclude'"),
        ("exclude,reason\nyes,\n", "has no column 'image'"),
        ("image,exclude\n,yes\n", "line 2: names no image"),
        ("image,exclude\na,yes\na,yes\n", "line 3: 'a' stands there twice"),
        ("image,exclude\na,perhaps\n", "exclude is 'perhaps'; write yes or no"),
        ("image,exclude,mask\na,no,\n", "'a' needs exclude: yes or a mask, one of them"),
        ("image,exclude,mask\na,yes,mask.png\n", "'a' needs exclude: yes or a mask, one of them"),
        ("image,mask\na,gone.png\n", r"gone\.png: no such mask"),
    ],
)
def test_a_table_that_says_nothing_clear(tmp_path, table, message):
    save_mask(tmp_path / "mask.png", (4, 4))
    (tmp_path / "review.csv").write_text(table)
    with pytest.raises(UserError, match=message):
        read_review(tmp_path / "review.csv")


def test_no_table(tmp_path):
    with pytest.raises(UserError, match=r"review\.csv: not a readable table"):
        read_review(tmp_path / "review.csv")


def test_all_that_does_not_fit_is_told_at_once(tmp_path):
    save_mask(tmp_path / "small.png", (4, 6))
    save_mask(tmp_path / "ids.png", SIZES["image_1"], value=9)
    table = "image,exclude,mask\nimage_0,,small.png\nimage_1,,ids.png\nimage_9,yes,\n"
    (tmp_path / "review.csv").write_text(table)
    with pytest.raises(UserError) as told:
        check_review(ReviewSettings(table=str(tmp_path / "review.csv"), read=READ), SIZES)
    one, two, three = str(told.value).splitlines()
    assert "small.png: mask of 4 × 6; its image is worked on at 40 × 60" in one
    assert "ids.png: label ids 9 are neither classes 0 to 3 nor the ignore index 255" in two
    assert "unknown image 'image_9'" in three


def test_a_mask_may_be_as_large_as_its_image(tmp_path, monkeypatch):
    monkeypatch.setattr("selftrain.data.review.PixelSettings", lambda limit=1: PixelSettings(limit=limit))
    save_mask(tmp_path / "large.png", (1200, 1000))
    assert read_mask(tmp_path / "large.png", CLASSES, (1200, 1000)).shape == (1200, 1000)
    with pytest.raises(UserError, match=r"large\.png: .*million pixels"):
        read_mask(tmp_path / "large.png", CLASSES, (4, 6))


def test_a_review_in_the_config_relabels_its_rounds_and_a_mistake_is_told_before_any_job(tmp_path):
    config = tiny_config()
    config["experiments"] = {"st": config["experiments"]["st"]}
    config["pretrain"] = {"branched": config["pretrain"]["branched"]}
    config["tasks"]["tiny"]["review"] = "review.csv"
    project = Project(tmp_path, config)
    (tmp_path / "review.csv").write_text("image,exclude\nreal_00000,maybe\n")
    code, told = project.forked("--dry-run")
    assert code == 1 and "Traceback" not in told
    assert "tasks.tiny.review: review.csv, line 2: exclude is 'maybe'" in told
    (tmp_path / "review.csv").write_text("image,exclude,reason\nreal_00000,yes,dark\n")
    planned = project.planned()
    assert "review task=tiny" in planned
    rules = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert rules["tasks"]["tiny"]["review"] == "review.csv"


def test_images_are_looked_for_before_any_job_where_they_are_files(folder_task, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder_task["tasks"]["tiny"]["review"] = "review.csv"
    (tmp_path / "review.csv").write_text("image,exclude\nunlabeled-9,yes\n")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(folder_task))
    with pytest.raises(
        UserError, match=r"tasks\.tiny\.review: .*review\.csv: unknown image 'unlabeled-9'; did you mean"
    ):
        Graph.load(tmp_path / "config.yaml").check_files()
