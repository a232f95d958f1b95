"""Settings: what a good config becomes, and what is said of a bad one."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from selftrain.errors import UserError
from selftrain.settings import reference
from selftrain.settings.base import deep_merge
from selftrain.settings.config import Config
from selftrain.settings.config_file import load, parse, read
from selftrain.settings.mixing import AlignmentSettings, MeanTeacherMixingSettings
from selftrain.settings.prediction import PredictionSettings, SpatialPriorSettings
from selftrain.settings.training import TeacherSettings, TrainSettings

REPOSITORY = Path(__file__).parents[1]

SPLIT = {"images": "images/*", "labels": "labels/*"}
GOOD: dict[str, Any] = {
    "tasks": {
        "town": {
            "classes": ["sky", "road", "car"],
            "labeled": dict(SPLIT),
            "unlabeled": {"images": "more/*"},
            "evaluation": {"val": dict(SPLIT)},
        }
    },
    "pretrain": {"base": {"train": {"batch_size": 2}}},
    "experiments": {
        "dars": {"policy": "dars", "rounds": [{"portion": 0.2}, {"portion": 0.5}]},
        "st": {"policy": {"name": "st", "threshold": 0.9}, "rounds": [{}]},
    },
}


def good(*changes: tuple[str, Any]) -> dict[str, Any]:
    """The good config, with values set at paths such as `experiments.dars.rounds.0.portion`."""
    config: Any = deepcopy(GOOD)
    for path, value in changes:
        *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
        node = config
        for part in parents:
            node = node[part] if isinstance(node, list) else node.setdefault(part, {})
        node[last] = value
    return config


def told(*changes: tuple[str, Any]) -> str:
    with pytest.raises(UserError) as error:
        parse(good(*changes))
    return str(error.value)


def told_lines(*changes: tuple[str, Any]) -> list[str]:
    """The problems, one by one, without the source and the count."""
    lines = told(*changes).removeprefix("config: ").split("\n  ")
    return lines if len(lines) == 1 else lines[1:]


MISSPELT = [
    ("shard", "shards"),
    ("machine.thread", "threads"),
    ("tasks.town.clases", "classes"),
    ("tasks.town.labeled.image", "images"),
    ("tasks.town.evaluation.val.siz", "size"),
    ("tasks.town.labeled.streets", {"domain": "real", "cuont": 3}),
    ("pretrain.base.modell", "model"),
    ("pretrain.base.model.encodr", "encoder"),
    ("pretrain.base.model.decoder", {"name": "aspp", "rate": 1}),
    ("pretrain.base.train.step", "steps"),
    ("pretrain.base.train.optimizer.learning_decay", "weight_decay"),
    ("pretrain.base.train.augmentation.crops", "crop"),
    ("experiments.dars.polcy", "policy"),
    ("experiments.dars.policy", {"name": "dars", "resoluton": 1}),
    ("experiments.dars.algorithm", {"name": "self_training", "wait": 1}),
    ("experiments.dars.prediction.scale", "scales"),
    ("experiments.dars.rounds.1.portoin", "portion"),
    ("experiments.dars.rounds.1.train.optimizer.lrr", "lr"),
    ("model.encodr", "encoder"),
    ("model.decoder", {"name": "light", "chanels": 3}),
    ("train.stpes", "steps"),
    ("train.optimizer.momntum", "momentum"),
    ("prediction.flipp", "flip"),
    ("prediction.patches", {"size": [4, 4], "cuont": 3}),
    ("evaluation.flipp", "flip"),
]


@pytest.mark.parametrize(("path", "valid"), MISSPELT)
def test_a_misspelt_key_is_told_once_with_its_path_and_the_nearest_key(path: str, valid: Any) -> None:
    if isinstance(valid, dict):  # the last key of a mapping is the misspelt one
        key = list(valid)[-1]
        line = told((path, valid)).split("\n  ")
        full, nearest = f"{path}.{key}", "did you mean"
    else:
        line, key, full, nearest = told((path, 1)).split("\n  "), path.split(".")[-1], path, f"did you mean '{valid}'?"
    full = full.replace(".0", "[0]").replace(".1", "[1]")
    about = [one for one in line if f"'{key}'" in one]
    assert len(about) == 1
    assert f"{full}: unknown key '{key}'; {nearest}" in about[0]


@pytest.mark.parametrize(
    "path",
    [
        *("train.steps", "train.batch_size", "train.optimizer.lr", "train.augmentation.flip"),
        *("model.output_stride", "model.encoder", "model.mean", "prediction.flip", "prediction.scales"),
        *("evaluation.flip", "evaluation.scales"),
    ],
)
def test_a_wrong_type_in_a_default_is_told_once_at_the_default(path: str) -> None:
    (line,) = told_lines((path, {"a": "b"}))
    assert line.startswith(f"{path}: ")


def test_a_wrong_value_that_an_experiment_passes_on_to_its_rounds_is_told_once() -> None:
    assert [line.split(":")[0] for line in told_lines(("experiments.dars.train.steps", "many"))] == [
        "experiments.dars.train.steps"
    ]


def test_a_contradiction_between_inherited_and_own_is_told_where_it_arises() -> None:
    (line,) = told_lines(
        ("train", {"steps": 3, "teacher": {}, "evaluate": "teacher"}), ("experiments.dars.train.teacher", None)
    )
    assert line.startswith("experiments.dars.train.evaluate: there is no teacher; write `teacher: {}`")


WRONG = [
    ("experiments.dars.rounds.1.portion", "half", "experiments.dars.rounds[1].portion: ", "'half'"),
    ("experiments.st.rounds.0.portion", 0.5, "experiments.st.rounds[0].portion: ", "threshold"),
    ("experiments.st.policy.threshold", 1.0, "experiments.st.policy.threshold: ", "less than 1"),
    ("experiments.dars.policy", "dar", "experiments.dars.policy: unknown name 'dar'", "'dars'"),
    ("experiments.dars.policy", {"name": "dar"}, "experiments.dars.policy: unknown name 'dar'", "'dars'"),
    ("experiments.dars.policy", {"resolution": None}, "experiments.dars.policy: 'name' is missing", ""),
    ("experiments.dars.policy", 3, "experiments.dars.policy: should be a mapping", "not 3"),
    ("experiments.dars.policy", {"name": "dars", "resolution": "float8"}, "experiments.dars.policy.resolution: ", "8"),
    ("experiments.dars.algorithm", "self-training", "experiments.dars.algorithm: unknown name", "'self_training'"),
    ("experiments.data", GOOD["experiments"]["dars"], "experiments.data: ", "another"),
    ("experiments.dars", "dars", "experiments.dars: should be a mapping of keys", "'dars'"),
    ("tasks.town.classes", ["a"], "tasks.town.classes: has too few entries", ""),
    ("tasks.town.colors", [[0, 0, 0]], "tasks.town.colors: 1 for 3 classes", ""),
    ("tasks.town.labeled.ids", {-1: 0}, "tasks.town.labeled.ids.-1: ", "greater than or equal to 0"),
    ("tasks.town.labeled.ids", {"seven": 0}, "tasks.town.labeled.ids.seven: ", "whole number"),
    ("tasks.town.labeled", {"images": "x/*"}, "tasks.town.labeled.labels: is missing", ""),
    ("tasks.town.truth", True, "tasks.town.unlabeled.labels: is missing", "truth"),
    ("tasks.town.labeled.list", "x.txt", "tasks.town.labeled: give exactly one of", "'images' and 'list'"),
    ("tasks.town.labeled", {}, "tasks.town.labeled: give exactly one of", "none"),
    ("tasks.town.labeled", {"list": "x", "labels": "y"}, "tasks.town.labeled.labels: goes with 'images'", ""),
    ("tasks.town.labeled.size", [4], "tasks.town.labeled.size[1]: is missing", ""),
    ("tasks.town.evaluation.a b", SPLIT, "tasks.town.evaluation.a b: a name is made of", ""),
    ("train.augmentation.scale", [2, 1], "train.augmentation.scale: the range", "ends below"),
    ("train", {"epochs": 3, "steps": 2}, "train.steps: give exactly one of 'steps' and 'epochs'", ""),
    ("model.module", "net", "model.module: 'net' should read", ""),
    ("model.std", [0, 1, 1], "model.std: ", "above 0"),
    ("seeds", [], "seeds: has too few entries", ""),
    ("pretrain", {}, "pretrain: has too few entries", ""),
    ("machine.threads", 0, "machine.threads: ", "greater than or equal to 1"),
]


@pytest.mark.parametrize(("path", "value", "start", "part"), WRONG)
def test_a_wrong_value_is_told_once_with_its_path(path: str, value: Any, start: str, part: str) -> None:
    (line,) = told_lines(("train.steps", 5), (path, value))
    assert line.startswith(start)
    assert part in line


def test_no_word_of_pydantic_reaches_the_person() -> None:
    for path, value, *_ in WRONG:
        text = told(("train.steps", 5), (path, value))
        for word in ("function-", "Settings", "Tuple", "Dictionary", "Input", "dictionary", "[key]", "dars.resolution"):
            assert word not in text.replace("experiments.dars.policy.resolution", ""), text


def test_several_problems_are_told_together() -> None:
    lines = told_lines(("seeds", [0, 0]), ("shrads", 3), ("train.stpes", 3), ("tasks.town.ignore_index", 0))
    assert [line.split(":")[0] for line in lines] == ["shrads", "seeds", "tasks.town.ignore_index", "train.stpes"]
    assert "4 problems" in told(("seeds", [0, 0]), ("shrads", 3), ("train.stpes", 3), ("tasks.town.ignore_index", 0))


def test_an_unknown_key_hides_no_other_problem_beside_it() -> None:
    lines = told_lines(("machine", {"thread": 1, "workers": -1}))
    assert [line.split(":")[0] for line in lines] == ["machine.thread", "machine.workers"]


def test_several_problems_of_one_task_are_told_together() -> None:
    assert len(told_lines(("tasks.town.classes", ["a", "a"]), ("tasks.town.ignore_index", 1))) == 2


def test_two_places_with_the_same_mistake_are_both_told() -> None:
    lines = told_lines(("pretrain.base.train.stpes", 1), ("experiments.dars.train.stpes", 1))
    assert [line.split(":")[0] for line in lines] == ["pretrain.base.train.stpes", "experiments.dars.train.stpes"]


@pytest.mark.parametrize("raw", [None, [], "text", 3])
def test_what_is_no_mapping_is_refused(raw: Any) -> None:
    with pytest.raises(UserError, match="should be a mapping of keys"):
        parse(raw)


def test_a_name_stands_for_a_choice_with_its_defaults() -> None:
    long = good(
        ("experiments.dars.policy", {"name": "dars"}),
        ("experiments.dars.algorithm", {"name": "self_training"}),
        ("model.decoder", {"name": "light"}),
    )
    short = good(("experiments.dars.algorithm", "self_training"), ("model.decoder", "light"))
    assert parse(short) == parse(long) == parse(good())


def test_true_stands_for_the_defaults_of_what_may_be_left_out_and_false_for_none() -> None:
    for value in (True, {}, False, None):
        predicted = PredictionSettings.model_validate({"spatial_prior": value})
        mixed = MeanTeacherMixingSettings.model_validate({"alignment": value})
        trained = TrainSettings.model_validate({"steps": 1, "teacher": value})
        found = (predicted.spatial_prior, mixed.alignment, trained.teacher)
        assert found == (
            (SpatialPriorSettings(), AlignmentSettings(), TeacherSettings()) if value in (True, {}) else (None,) * 3
        )


def test_a_single_glob_stands_for_a_list() -> None:
    assert parse(good()).tasks["town"].labeled.images == ("images/*",)


def test_defaults_reach_pretrainings_experiments_and_rounds() -> None:
    config = parse(
        good(
            ("model", {"encoder": "resnet18"}),
            ("train", {"steps": 7, "batch_size": 4, "optimizer": {"lr": 0.5}}),
            ("prediction.flip", True),
            ("experiments.dars.train", {"optimizer": {"momentum": 0.5}}),
            ("experiments.dars.rounds.1.train", {"optimizer": {"lr": 0.25}}),
        )
    )
    pretrain, dars = config.pretrain["base"], config.experiments["dars"]
    assert pretrain.model.encoder == "resnet18"
    assert (pretrain.train.steps, pretrain.train.batch_size, pretrain.train.optimizer.lr) == (7, 2, 0.5)
    assert dars.prediction.flip
    assert dars.pretrain == "base"
    assert [(one.train.steps, one.train.optimizer.lr, one.train.optimizer.momentum) for one in dars.rounds] == [
        (7, 0.5, 0.5),
        (7, 0.25, 0.5),
    ]
    assert config.experiments["st"].train.optimizer.momentum == 0.9


def test_no_train_section_is_needed() -> None:
    config = parse(good())
    assert config.train.steps == config.pretrain["base"].train.steps == config.experiments["dars"].train.steps == 1000
    assert config.pretrain["base"].train.batch_size == 2


def test_a_train_section_without_a_length_has_the_default_length() -> None:
    assert parse(good(("train.batch_size", 3))).experiments["dars"].train.steps == 1000


def test_epochs_replace_inherited_steps_and_the_other_way_round() -> None:
    config = parse(
        good(("pretrain.base.train.epochs", 2), ("experiments.dars.rounds.0.train.epochs", 3), ("train.steps", 5))
    )
    dars = config.experiments["dars"]
    told = [(one.steps, one.epochs) for one in (config.pretrain["base"].train, *(one.train for one in dars.rounds))]
    assert told == [(None, 2), (None, 3), (5, None)]
    assert parse(good(("train.epochs", 2))).pretrain["base"].train.steps is None


def test_empty_sections_are_as_if_absent() -> None:
    empty = [(section, None) for section in ("train", "model", "prediction", "evaluation", "machine")]
    assert parse(good(*empty)) == parse(good())
    assert parse(good(("experiments", None))).experiments == {}
    assert parse(good(("pretrain", {"base": None}))).pretrain["base"].train.steps == 1000


def test_an_experiment_starts_from_the_first_pretraining_unless_it_names_another() -> None:
    config = parse(good(("pretrain.other", {}), ("experiments.st.pretrain", "other")))
    assert [config.experiments[name].pretrain for name in ("dars", "st")] == ["base", "other"]


def test_another_choice_inherits_nothing_from_the_default_choice() -> None:
    config = parse(
        good(
            ("model.decoder", {"name": "aspp", "rates": [1, 2]}),
            ("pretrain.same", {"model": {"decoder": {"rates": [3]}}}),
            ("pretrain.light", {"model": {"decoder": {"name": "light"}}}),
            ("experiments", {}),
        )
    )
    assert config.pretrain["base"].model.decoder.model_dump() == {"name": "aspp", "rates": (1, 2)}
    assert config.pretrain["same"].model.decoder.model_dump() == {"name": "aspp", "rates": (3,)}
    assert config.pretrain["light"].model.decoder.name == "light"


def test_settings_are_added_to_a_choice_that_the_default_gives_by_name_alone() -> None:
    config = parse(good(("model.decoder", "aspp"), ("pretrain.base.model.decoder.rates", [5])))
    assert config.pretrain["base"].model.decoder.model_dump() == {"name": "aspp", "rates": (5,)}


def test_merging_changes_neither_side() -> None:
    base, over = {"a": {"b": 1, "c": [1, 2]}, "d": 1}, {"a": {"c": [3]}, "e": None}
    before = deepcopy((base, over))
    assert deep_merge(base, over) == {"a": {"b": 1, "c": [3]}, "d": 1, "e": None}
    assert (base, over) == before


def test_settings_survive_json() -> None:
    config = parse(good(("tasks.town.labeled.ids", {7: 0, 300: 255})))
    assert Config.model_validate_json(config.model_dump_json()) == config
    assert parse(config.model_dump(mode="json")) == config


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        parse(good()).shards = 2  # type: ignore[misc]


@pytest.fixture(scope="module")
def schema() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(Config.model_json_schema())


def test_the_json_schema_takes_a_good_config(schema) -> None:
    schema.check_schema(schema.schema)
    schema.validate(good(("pretrain", {"base": None}), ("model.decoder", "aspp")))


@pytest.mark.parametrize(
    ("path", "value"),
    [("shrads", 1), ("experiments.dars.policy", "dar"), ("experiments.dars.rounds.0.portion", 2), ("seeds", "x")],
)
def test_the_json_schema_refuses_what_parsing_refuses(schema, path: str, value: Any) -> None:
    told((path, value))
    with pytest.raises(jsonschema.ValidationError):
        schema.validate(good((path, value)))


SHIPPED = [
    path
    for path in sorted(REPOSITORY.glob("configs/**/*.yaml"))
    if path.parent.name not in ("ablation", "parts")  # these need others beside them
]


@pytest.mark.parametrize("path", [REPOSITORY / "config.yaml", *SHIPPED], ids=str)
def test_shipped_configs_parse_and_satisfy_the_schema(schema, path: Path) -> None:
    assert load(path).tasks
    schema.validate(read(path))


def test_the_schema_file_is_in_step():
    """`make schema` writes it; editors read it."""
    file = REPOSITORY / "workflow/schemas/config.schema.json"
    assert json.loads(file.read_text()) == Config.model_json_schema()


def test_every_key_of_the_page_has_a_meaning():
    rows = [line for line in reference.page().splitlines() if line.startswith("| `")]
    assert len(rows) > 150 and [row for row in rows if not row.split(" | ")[-1].strip(" |")] == []


def test_the_page_of_settings_is_in_step():
    """`make schema` writes it; people read it."""
    assert (REPOSITORY / "docs/settings.md").read_text() == reference.page() + "\n"
