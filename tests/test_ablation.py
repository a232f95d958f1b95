"""configs/ablation, tables for any task: each row parses on top of other configs, differs from the others, trains."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import tiny
from safetensors.torch import load_file
from test_settings import REPOSITORY

from selftrain.flow import Flow
from selftrain.settings.config import Config
from selftrain.settings.config_file import load, read
from selftrain.settings.model import ModelSettings
from selftrain.settings.training import TrainStageSettings
from selftrain.train.stage import train

DEFAULT = REPOSITORY / "config.yaml"
ROWS = {"curriculum-table-1": 5, "table-5.1": 13, "table-5.2": 4}
TABLES = {name: REPOSITORY / f"configs/ablation/{name}.yaml" for name in ROWS}
PUBLISHED = ("classmix/cityscapes-1-8", "dacs/gta5-to-cityscapes")
BASES = [*(REPOSITORY / "configs/camvid").glob("*.yaml"), *(REPOSITORY / f"configs/{name}.yaml" for name in PUBLISHED)]
BRANCHED = ModelSettings(encoder="test_resnet", output_stride=16, decoder={"name": "light", "channels": 8}, branches=2)


def on_top_of(base: Path, table: str) -> tuple[dict[str, Any], Config]:
    """The base's own content, and the config of `--configfile base.yaml ablation.yaml`."""
    return read(base), load(base, TABLES[table])


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("base", [DEFAULT, *BASES], ids=lambda path: path.stem)
def test_an_ablation_can_be_put_on_top_of_any_config(base: Path, table: str) -> None:
    own, config = on_top_of(base, table)
    rows = set(config.only or ())
    assert len(config.only or ()) == len(rows) == ROWS[table]
    assert rows == set(config.experiments) - set(own["experiments"]), "a row has the name of another experiment"
    assert {model.name for model in Flow(config).rounds} == rows
    assert {model.task for model in Flow(config).rounds} == set(config.tasks)
    kinds = [config.experiments[name].model_dump() for name in config.only or ()]
    assert all(kinds.count(kind) == 1 for kind in kinds), "two rows are the same"
    assert [name for name in rows if config.experiments[name].oracle] == ["aligned-intramix"] * (table == "table-5.2")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("data")
    shares = pd.DataFrame({"class": tiny.CLASSES, "share": [0.5, 0.49, 0.01], "images": 9, "mean_size": 0.5})
    shares.to_csv(folder / "classes.csv", index=False)
    return {
        "labeled": tiny.split(folder / "labeled"),
        "unlabeled": tiny.split(folder / "unlabeled", seed=1, label_files=False),
        "distribution": folder / "classes.csv",
        "statistics": folder / "classes.csv",
    }


@pytest.mark.parametrize("table", TABLES)
def test_every_row_trains_and_ends_elsewhere(table: str, inputs: dict[str, Path], tmp_path: Path) -> None:
    _, config = on_top_of(DEFAULT, table)
    ends: dict[str, Any] = {}
    for name in config.only or ():
        experiment = config.experiments[name]
        # In four steps the curriculum's first batch alone is labeled, and of it nothing is dropped yet.
        steps = 12 if table == "curriculum-table-1" else 4
        told = experiment.train.model_dump() | {"steps": steps}
        told["augmentation"]["crop"] = told["augmentation"]["crop"] and (24, 24)
        algorithm = experiment.algorithm.model_dump()
        if "threshold" in algorithm:
            algorithm["threshold"] = 0.5  # in four steps a teacher is never surer
        settings = TrainStageSettings(
            model=tiny.MODEL if config.pretrain[experiment.pretrain].model.branches == 1 else BRANCHED,
            train=told,
            algorithm=algorithm,
            seed=0,
            round=1,
            labeled=tiny.READ,
            unlabeled=tiny.READ,
        )
        paths = tiny.outputs(tmp_path / name, **inputs)
        train(settings, paths, tiny.NOW)
        assert pd.read_csv(paths.table).step.max() == (8 if name == "twice-as-long" else steps)
        ends[name] = {key: tensor.numpy().tobytes() for key, tensor in load_file(paths.model).items()}
    assert all(list(ends.values()).count(end) == 1 for end in ends.values()), "two rows end with the same weights"
