"""A training of every kind on the toy, for what must hold of all of them."""

import tiny

from selftrain.settings.model import ModelSettings

SMALL = {"encoder": "test_resnet", "output_stride": 16, "decoder": {"name": "light", "channels": 12}}
WITH_HEADS = ModelSettings(**SMALL, auxiliary={"channels": 8})
TWO_BRANCHES = ModelSettings(**SMALL, branches=2)
MIXING = {"name": "mean_teacher_mixing", "threshold": 0.2, "strong": {"blur_probability": 1, "jitter_probability": 1}}

EVERY = {
    "supervised": {"class_weights": (1, 5, 1), "focal": 2.0, "clip_gradient": 1.0},
    "self_training": {"algorithm": "self_training", "optimizer": {"name": "sgd", "lr": 0.02}},
    "weak_labels": {"algorithm": {"name": "weak_labels", "channels": 8, "hidden": 8}, "model": WITH_HEADS},
    "hybrid": {
        "algorithm": {"name": "hybrid", "strong": MIXING["strong"], "rare_classes": True},
        "optimizer": {"name": "sgd", "lr": 0.02},
    },
    "classmix": {"algorithm": MIXING, "evaluate": "teacher"},
    "dacs": {
        "algorithm": MIXING
        | {"across": "source_to_target", "forwards": "joint", "alignment": {"target": [0.3, 0.3, 0.4]}}
    },
    "cutmix": {"algorithm": MIXING | {"mixing": "cutmix", "loss": "squared_error", "weight": "pixelwise"}},
    "cowmix": {"algorithm": MIXING | {"mixing": "cowmix", "pseudo_labels": "soft"}},
    "curriculum": {"algorithm": "curriculum", "model": TWO_BRANCHES, "class_weights": (1, 5, 1)},
}


def settings(kind, **train):
    """Of a few steps."""
    told = EVERY[kind] | train
    teacher = {"teacher": {}} if "mix" in str(told.get("algorithm")) else {}
    return tiny.stage(**({"steps": 4} | teacher | told))


def files(folder):
    """Labeled images, unlabeled ones, and pseudo-labels of those."""
    names = [f"unlabeled-{number}" for number in range(7)]
    labels = [tiny.blocks(tiny.SIZE, 1000 + number) for number in range(7)]
    return {
        "labeled": tiny.split(folder / "labeled"),
        "unlabeled": tiny.split(folder / "unlabeled", (tiny.SIZE,) * 7, seed=1),
        "pseudo_labels": tiny.write_pseudo_labels(folder / "pseudo_labels.h5", names, labels),
    }
