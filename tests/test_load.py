"""Much of everything: experiments, classes, pixels."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import test_odd_data
import tiny
import torch
from exact import mean_over_patches
from walking import planned, walk

from selftrain import randomness
from selftrain.predict.patches import bands_over_patches
from selftrain.settings.prediction import PatchSettings


@pytest.mark.slow
def test_the_graph_of_fifty_experiments(tmp_path):
    for name in ("labeled", "unlabeled", "val"):
        test_odd_data.write(tmp_path / name, {f"{name}-0": test_odd_data.ids([0, 1, 2])})
    rounds = [{"portion": portion} for portion in (0.2, 0.5, 0.8)]
    many = {
        f"dars-{number}": {"policy": "dars", "rounds": rounds, "train": {"steps": number + 1}} for number in range(50)
    }
    jobs = Counter(job.rule for job in planned(tmp_path, test_odd_data.config(tiny.CLASSES, **many)))
    assert jobs["train"] == 150 and jobs["merge"] == 150 and jobs["pretrain"] == jobs["check"] == 1
    assert jobs["predict"] == 2 * 101 and jobs["select"] == 150  # the first round's predictions and model are shared


@pytest.mark.slow
def test_255_classes_go_through_every_stage(tmp_path):
    classes = [f"class {number}" for number in range(255)]
    for number, name in enumerate(("labeled", "unlabeled", "val")):
        ids = {
            f"{name}-{one}": np.random.default_rng(10 * number + one).integers(0, 256, (16, 24), np.uint8)
            for one in (0, 1)
        }
        test_odd_data.write(tmp_path / name, ids)
    walk(tmp_path, test_odd_data.config(classes, dars={"policy": "dars", "rounds": [{"portion": 0.9}]}))
    labels = pd.read_csv(tmp_path / "results/odd/dars/seed-0/round-1/pseudo_labels.csv")
    assert len(labels) == 255 and labels.pixels.sum() > 0
    assert len(pd.read_csv(tmp_path / "results/odd/dars/seed-0/round-1/confusion.csv")) >= 255
    assert "class 254" in (tmp_path / "results/report/index.html").read_text()


def softmax(patches):
    return torch.cat([patches.float(), patches.float().flip(1)], 1).softmax(1)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(("size", "count"), [((9, 12), 1), ((9, 12), 60), ((200, 12), 3), ((40, 40), 9)])
def test_bands_are_the_rows_of_the_whole(monkeypatch, size, count, whole):
    """With patches that cover the image, that leave rows without any, and that are larger than it."""
    image = torch.randint(0, 255, (3, 100, 50), dtype=torch.uint8)
    told = {"classes": 6, "fill": (0, 0, 0)}
    made = {}
    for memory in (512, 1):
        monkeypatch.setattr("selftrain.predict.patches.MIB", 2**20 if memory == 512 else 1000)
        patches = PatchSettings(size=size, count=count, memory=memory, whole_image=whole)
        bands = list(bands_over_patches(softmax, image, patches, randomness.generator(0), **told))
        made[memory] = torch.cat(bands, 1)
        assert (len(bands) == 1) == (memory == 512 or size[0] > 100)
    assert torch.equal(made[512], made[1]) and made[1].shape == (6, 100, 50)
    torch.testing.assert_close(made[1].sum(0), torch.ones(100, 50))


def test_patches_that_cover_need_no_whole_image():
    image, seen = torch.zeros(3, 100, 50, dtype=torch.uint8), []

    def noted(patches):
        seen.append(tuple(patches.shape[2:]))
        return softmax(patches)

    for cover, sizes in ((False, {(20, 20), (100, 50)}), (True, {(20, 20)})):
        seen.clear()
        patches = PatchSettings(size=(20, 20), count=2, cover=cover)
        mean_over_patches(noted, image, patches, randomness.generator(0), classes=6, fill=(0, 0, 0))
        assert set(seen) == sizes
    assert PatchSettings(size=(20, 20), count=2, cover=True).mode == "sisc-2x20x20-cover"


LARGE = """
import json, resource, sys
import numpy as np, torch
import tiny
from selftrain.predict.forward import Predictor
from selftrain.settings.prediction import InferenceSettings

side, patches = int(sys.argv[1]), json.loads(sys.argv[2])
torch.manual_seed(0)
network = tiny.network(19, dropout=0.0).eval()
model = lambda images: network(images.float() / 255)
predictor = Predictor(model, 19, InferenceSettings(patches=patches))
image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 3, side, side), np.uint8))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
decided = predictor(image, ["a"], (side, side)).decided()
assert decided.classes.shape == (1, side, side) and int(decided.bins.min()) >= 0
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
def test_an_image_of_8000_by_8000_is_predicted_within_a_memory():
    """All its scores, of 19 classes, would take 4,639 MiB; what is decided takes 5 bytes a pixel, 305 MiB."""
    patches = {"size": [512, 512], "count": 1, "cover": True, "memory": 512}
    command = [sys.executable, "-c", LARGE, "8000", json.dumps(patches)]
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent / "src")])
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 2000, done.stdout
