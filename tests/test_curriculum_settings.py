"""What a config says of the curriculum, of branches, class weights and oracles: parsed, refused, made into a flow."""

from copy import deepcopy
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_settings import good, told_lines

from selftrain.data.tables import read_classes, write_statistics
from selftrain.errors import UserError
from selftrain.flow import Flow, Model
from selftrain.graph import Graph
from selftrain.settings.config_file import parse
from selftrain.settings.curriculum import SourceHardMiningSettings, TargetEasyMiningSettings
from selftrain.settings.training import ClassWeightRuleSettings
from selftrain.train import inputs
from selftrain.train.class_weights import class_weights

BRANCHES = ("model", {"branches": 2})
ALONE = "the model of 'base' has one branch, which always agrees; set its 'branches' to 2 or more"
OFF = {"name": "curriculum", "target_easy_mining": False, "source_hard_mining": False}
TRUTH = (("tasks.town.truth", True), ("tasks.town.unlabeled", {"images": "a/*", "labels": "b/*"}))
ORACLE = (*TRUTH, ("pretrain.oracle", {"labels": "truth"}))
OF_TOWN = (*TRUTH, ("pretrain.oracle", {"labels": "truth", "tasks": ["town"]}))
OTHER = ("tasks.city", good()["tasks"]["town"] | {"classes": ["sky", "road", "bus"]})


def curriculum(*changes: tuple[str, Any], **settings: Any) -> Any:
    """The algorithm of an experiment in the good config, with two branches, as parsed."""
    experiment = {"algorithm": {"name": "curriculum"} | settings}
    return parse(good(BRANCHES, ("experiments.new", experiment), *changes)).experiments["new"].algorithm


# The algorithm


def test_the_name_is_enough_and_is_the_paper() -> None:
    told = parse(good(BRANCHES, ("experiments.new", {"algorithm": "curriculum"}))).experiments["new"]
    assert told.rounds is None and told.train.teacher is None and told.train.branch_similarity == 0.01
    assert told.algorithm.source_ratio.model_dump() == {"start": 0.9, "end": 0.1, "until": 0.5}
    assert told.algorithm.source_hard_mining.model_dump() == {"start": 0, "end": 1, "until": 0.5}
    assert told.algorithm.target_easy_mining.agreement == 1


@pytest.mark.parametrize(
    ("value", "easy", "hard"),
    [
        (True, TargetEasyMiningSettings(), SourceHardMiningSettings()),
        ({}, TargetEasyMiningSettings(), SourceHardMiningSettings()),
        (False, None, None),
        (None, None, None),
    ],
)
def test_mining_is_on_or_off(value: Any, easy: Any, hard: Any) -> None:
    told = curriculum(target_easy_mining=value, source_hard_mining=value)
    assert (told.target_easy_mining, told.source_hard_mining) == (easy, hard)


def test_mining_can_be_told_more() -> None:
    told = curriculum(target_easy_mining={"agreement": 0.5}, source_hard_mining={"end": 0.8})
    assert told.target_easy_mining.agreement == 0.5
    assert told.source_hard_mining == SourceHardMiningSettings(start=0, end=0.8, until=0.5)


WRONG = [
    ({"target_easy_mining": {"agreemnt": 1}}, "target_easy_mining.agreemnt: unknown key 'agreemnt'; did you mean 'agr"),
    ({"source_hard_mining": {"strt": 1}}, "source_hard_mining.strt: unknown key 'strt'; did you mean 'start'?"),
    ({"source_ratio": {"untill": 1}}, "source_ratio.untill: unknown key 'untill'; did you mean 'until'?"),
    ({"sorce_ratio": {}}, "sorce_ratio: unknown key 'sorce_ratio'; did you mean 'source_ratio'?"),
    ({"target_easy_mining": {"agreement": 0}}, "target_easy_mining.agreement: should be greater than 0, not 0"),
    ({"target_easy_mining": {"agreement": 1.1}}, "target_easy_mining.agreement: should be less than or equal to 1"),
    ({"source_ratio": {"start": 2}}, "source_ratio.start: should be less than or equal to 1, not 2"),
    ({"source_ratio": {"until": 0}}, "source_ratio.until: should be greater than 0, not 0"),
    ({"source_hard_mining": "on"}, "source_hard_mining: should be a mapping of keys, not 'on'"),
    ({"source_ratio": True}, "source_ratio: should be a mapping of keys, not True"),
]


@pytest.mark.parametrize(("settings", "line"), WRONG)
def test_what_makes_no_sense_is_told_once_at_its_key(settings: dict[str, Any], line: str) -> None:
    lines = told_lines(BRANCHES, ("experiments.new", {"algorithm": {"name": "curriculum"} | settings}))
    assert len(lines) == 1 and lines[0].startswith(f"experiments.new.algorithm.{line}"), lines


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"rounds": [{"portion": 0.2}], "policy": "st"}, "rounds: 'curriculum' is one training beside the rounds"),
        ({"policy": "st"}, "policy: belongs to rounds"),
        ({"prediction": {"agreement": 1}}, "prediction: belongs to rounds"),
        ({"start": "pretraind"}, "start: should be 'encoder' or 'pretrained'"),
    ],
)
def test_what_belongs_to_rounds_is_refused(settings: dict[str, Any], line: str) -> None:
    lines = told_lines(BRANCHES, ("experiments.new", {"algorithm": "curriculum"} | settings))
    assert len(lines) == 1 and lines[0].startswith(f"experiments.new.{line}"), lines


# Networks with branches


@pytest.mark.parametrize("off", [(), ("target_easy_mining",), ("source_hard_mining",)])
def test_mining_asks_for_branches(off: tuple[str, ...]) -> None:
    algorithm = {"name": "curriculum"} | dict.fromkeys(off, False)
    on = [key for key in ("target_easy_mining", "source_hard_mining") if key not in off]
    expected = [f"experiments.new.algorithm.{key}: {ALONE}, or write `{key}: false`" for key in on]
    assert told_lines(("experiments.new", {"algorithm": algorithm})) == expected


def test_the_network_is_that_of_the_pretraining() -> None:
    other = ("pretrain.two", {"model": {"branches": 2}})
    told = {"algorithm": "curriculum", "pretrain": "two"}
    assert Graph(parse(good(other, ("experiments.new", told)))).train(Model("town", "new", 0, 1)).model.branches == 2
    assert parse(good(("experiments.new", {"algorithm": OFF}))).experiments["new"].algorithm.target_easy_mining is None
    lines = told_lines(BRANCHES, ("pretrain.base.model", {"branches": 1}), ("experiments.new", told | {"pretrain": ""}))
    assert len(lines) == 1 and "new.pretrain: unknown pretraining ''" in lines[0]


def test_a_network_of_ones_own_may_have_branches_and_says_so_itself() -> None:
    own = ("pretrain.base.model", {"module": "tiny:network"})
    parse(
        good(own, ("experiments.new", {"algorithm": "curriculum"}), ("experiments.dars.prediction", {"agreement": 1}))
    )
    lines = told_lines(("pretrain.base.model", {"module": "tiny:network", "branches": 2}))
    assert lines == ["pretrain.base.model.branches: are of the 'decoder'; a 'module' brings its own"]


@pytest.mark.parametrize("rounds", [(0,), (1,), (0, 1)])
def test_agreement_asks_for_branches_once_per_place(rounds: tuple[int, ...]) -> None:
    changes = [(f"experiments.dars.rounds.{number}.prediction", {"agreement": 0.5}) for number in rounds]
    expected = [f"experiments.dars.rounds[{number}].prediction.agreement: {ALONE}" for number in rounds]
    assert told_lines(*changes) == expected
    agreements = [one.prediction.agreement for one in parse(good(BRANCHES, *changes)).experiments["dars"].rounds]
    assert agreements == [0.5 if number in rounds else None for number in (0, 1)]


def test_evaluation_knows_no_agreement() -> None:
    assert told_lines(("evaluation", {"agreement": 1}))[0].startswith("evaluation.agreement: unknown key 'agreement'")


# Where pretrainings run, and upper bounds

BOUND = "experiments.dars.upper_bound"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ([("pretrain.base.tasks", ["town", "twon"])], "pretrain.base.tasks[1]: unknown task 'twon'; did you mean 'to"),
        ([OTHER, ("pretrain.base.tasks", ["town"]), ("experiments.st.tasks", ["town"])], "experiments.dars.pretrain: "),
        ([("pretrain.other", {"labels": "truth"})], "pretrain.other.labels: the task 'town' has no hidden truth"),
        ([("pretrain.base.labels", "thruth")], "pretrain.base.labels: should be 'labeled' or 'truth', not 'thruth'"),
        ([*ORACLE, (BOUND, "oracel")], f"{BOUND}: unknown pretraining 'oracel'; did you mean 'oracle'?"),
        ([*ORACLE, (BOUND, "base")], f"{BOUND}: 'base' does not learn the target's labels; give it `labels: truth`"),
        (
            [*OF_TOWN, OTHER, (BOUND, "oracle")],
            f"{BOUND}: 'oracle' does not run on the task 'city'; name it in its 'tasks'",
        ),
    ],
)
def test_pretrainings_that_are_not_where_they_are_needed_are_told(changes: Any, line: str) -> None:
    lines = told_lines(*changes)
    assert len(lines) == 1 and lines[0].startswith(line), lines


def test_an_upper_bound_runs_at_least_where_its_experiment_does() -> None:
    changes = (*OF_TOWN, OTHER, (BOUND, "oracle"))
    assert parse(good(*changes, ("experiments.dars.tasks", ["town"]))).experiments["dars"].upper_bound == "oracle"


# Class weights


@pytest.mark.parametrize("weights", [{"car": 2}, [1, 1, 2], "small_and_frequent", {"name": "small_and_frequent"}])
def test_class_weights_are_by_name_or_a_list_or_a_rule(weights: Any) -> None:
    told = parse(good(("train.class_weights", weights)))
    kind = {dict: dict, list: tuple, str: ClassWeightRuleSettings}[type(weights)]
    kind = ClassWeightRuleSettings if "name" in weights else kind
    for one in (told.pretrain["base"], *told.experiments["dars"].rounds):
        assert type(one.train.class_weights) is kind
        assert kind is not ClassWeightRuleSettings or one.train.class_weights == ClassWeightRuleSettings()


@pytest.mark.parametrize(
    ("weights", "line"),
    [
        ({"raod": 2}, ".raod: unknown class 'raod'; did you mean 'road'? (of the task 'town')"),
        ([1, 2], ": 2 for the 3 classes of the task 'town'"),
        ({"road": -1}, ".road: should be greater than or equal to 0, not -1"),
        ("small_and_frequnt", ".name: should be 'small_and_frequent'"),
        ({"name": "small_and_frequent", "shar": 1}, ".shar: unknown key 'shar'; did you mean 'share'?"),
    ],
)
@pytest.mark.parametrize("place", ["pretrain.base", "experiments.new", "experiments.dars.rounds.1"])
def test_class_weights_that_do_not_fit_are_told_at_their_key(place: str, weights: Any, line: str) -> None:
    changes = [("experiments.new", {"algorithm": OFF}), (f"{place}.train", {"class_weights": weights})]
    lines = told_lines(*changes)
    assert len(lines) == 1, lines
    assert lines[0].startswith(f"{place.replace('.1', '[1]')}.train.class_weights{line}"), lines


def test_weights_must_fit_every_task() -> None:
    assert told_lines(OTHER, ("pretrain.base.train", {"class_weights": {"car": 2}})) == [
        "pretrain.base.train.class_weights.car: unknown class 'car'; valid: sky, road, bus (of the task 'city')"
    ]


@pytest.mark.parametrize("weights", [{"raod": 2}, [1, 2], {"road": -1}])
def test_inherited_class_weights_that_do_not_fit_are_told_once(weights: Any) -> None:
    lines = told_lines(("train.class_weights", weights))
    assert len(lines) == 1 and lines[0].startswith("train.class_weights"), lines


@pytest.mark.parametrize(
    ("inherited", "own"),
    [("small_and_frequent", {"road": 2.0}), ({"road": 2.0}, {"name": "small_and_frequent", "share": 0.5})],
)
def test_weights_of_another_kind_replace_the_inherited_ones(inherited: Any, own: Any) -> None:
    told = parse(good(("train.class_weights", inherited), ("pretrain.base.train.class_weights", own)))
    found = told.pretrain["base"].train.class_weights
    assert (found if isinstance(found, dict) else found.model_dump(exclude_unset=True)) == own


NAMES = ("sky", "road", "car")


def test_a_list_or_names_become_one_weight_per_class() -> None:
    assert class_weights((1, 2, 3), NAMES) == [1, 2, 3]
    assert class_weights({"car": 2.5, "sky": 0.0}, NAMES) == [0.0, 1.0, 2.5] and class_weights({}, NAMES) == [1.0] * 3


@given(seed=st.integers(0, 10**6), share=st.floats(0, 1), least=st.integers(0, 19), factor=st.floats(0.1, 9))
def test_the_rule_weighs_classes_that_are_small_and_often_there(
    seed: int, share: float, least: int, factor: float
) -> None:
    draw = np.random.default_rng(seed)
    table = pd.DataFrame({"share": draw.dirichlet([0.5] * 6), "images": draw.integers(0, 21, 6)})
    told = ClassWeightRuleSettings(share=share, images=(least + 0.5) / 20, factor=factor)
    expected = []
    for small, often in zip(table.share, table.images, strict=True):
        expected.append(factor if small <= share and often > least else 1.0)
    assert class_weights(told, list("abcdef"), table, images=20) == expected


@pytest.mark.parametrize("images", [20, 100])
def test_the_rules_limits_are_small_and_often_themselves(images: int) -> None:
    for least in range(images + 1):
        table = pd.DataFrame({"share": [0.02] * 3, "images": [least - 1, least, least + 1]})
        told = ClassWeightRuleSettings(images=least / images)
        assert class_weights(told, NAMES, table, images) == [1, 2, 2], least


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ((1, 2), "2 for 3 classes"),
        ({"raod": 2}, "unknown class 'raod'; did you mean 'road'"),
        (ClassWeightRuleSettings(), r"'small_and_frequent' needs the classes\.csv of the labeled split"),
    ],
)
def test_weights_that_a_training_cannot_use_are_told(told: Any, reason: str) -> None:
    with pytest.raises(UserError, match=f"^class_weights: {reason}"):
        class_weights(told, NAMES)


def test_a_training_makes_weights_of_the_statistics_of_its_labels(tmp_path: Any) -> None:
    files = {"labeled": tiny.split(tmp_path / "labeled"), "statistics": tmp_path / "classes.csv"}
    write_statistics(tiny.READ, files["labeled"], files["statistics"], tmp_path / "statistics.h5")
    table, cpu = read_classes(files["statistics"], tiny.CLASSES), torch.device("cpu")

    def given_weights(weights: Any, **other: Any) -> Any:
        paths = tiny.outputs(tmp_path / "run", **files | other)
        return inputs.given(tiny.stage(class_weights=weights), paths, None, cpu).class_weights

    rule = {"name": "small_and_frequent", "share": sorted(table.share)[1], "images": 0.9, "factor": 3}
    often = table.images >= 0.9 * 5
    expected = [3 if small and one else 1 for small, one in zip(table.share <= rule["share"], often, strict=True)]
    assert given_weights(rule).tolist() == expected and 0 < expected.count(3) < 3
    assert given_weights({"car": 2}).tolist() == [1, 1, 2] and given_weights(None) is None
    with pytest.raises(UserError, match=r"class_weights: 'small_and_frequent' needs the classes\.csv"):
        given_weights(rule, statistics=None)


# The flow

NEW = ("experiments.new", {"algorithm": OFF, "pretrain": "two", "upper_bound": "oracle"})
MANY = (*ORACLE, ("pretrain.two", {"model": {"branches": 2}}), ("pretrain.unused", None), NEW)


def graph(*changes: tuple[str, Any]) -> Graph:
    return Graph(parse(good(*deepcopy(MANY), *changes)))


def test_only_the_pretrainings_run_that_are_started_from_or_compared_with() -> None:
    def pretrained(*changes: tuple[str, Any]) -> set[str]:
        return {model.name for model in graph(*changes).pretrained}

    assert pretrained() == {"base", "oracle", "two", "unused"}
    assert pretrained(("only", ["new"])) == {"two", "oracle"}
    assert pretrained(("only", ["st", "new"])) == {"base", "two", "oracle"}


def test_pretrainings_run_on_their_tasks() -> None:
    truth = {"truth": True, "unlabeled": {"images": "a/*", "labels": "b/*"}}
    flow = graph(("tasks.city", good()["tasks"]["town"] | truth), ("pretrain.unused", {"tasks": ["city"]}))
    assert {model.task for model in flow.pretrained if model.name == "unused"} == {"city"}
    assert {model.task for model in flow.pretrained if model.name == "base"} == {"town", "city"}
    flow = graph(("tasks.city", OTHER[1] | truth), ("experiments.new.tasks", ["city"]), ("only", ["new"]))
    assert {(model.task, model.name) for model in flow.pretrained} == {("city", "two"), ("city", "oracle")}


def test_an_oracle_learns_the_hidden_truth() -> None:
    flow = graph(("tasks.town.unlabeled.ids", {"7": 0}), ("tasks.town.unlabeled.size", [16, 32]))
    oracle, base = Model("town", "oracle", 0, 0), Model("town", "base", 0, 0)
    assert flow.train_files(oracle) == {"labeled": "results/town/data/truth/images.csv"}
    assert flow.train_files(base) == {"labeled": "results/town/data/labeled/images.csv"}
    assert flow.train(oracle).labeled == flow.read("town", "truth") != flow.train(base).labeled
    assert flow.train(oracle).labeled.size == (16, 32) and flow.train(oracle).labeled.ids == {7: 0}


def test_a_rule_of_weights_reads_the_statistics_of_the_labels_that_are_learned() -> None:
    flow = graph(("train.class_weights", "small_and_frequent"))
    read = {"labeled": "results/town/data/labeled/classes.csv", "truth": "results/town/data/truth/classes.csv"}
    for name, number in (("base", 0), ("new", 1), ("dars", 2)):
        assert flow.train_files(Model("town", name, 0, number))["statistics"] == read["labeled"]
    assert flow.train_files(Model("town", "oracle", 0, 0))["statistics"] == read["truth"]
    for weights in (None, {"car": 2}, [1, 2, 3]):
        told = graph(("train.class_weights", "small_and_frequent"), ("pretrain.base.train.class_weights", None))
        assert "statistics" not in told.train_files(Model("town", "base", 0, 0))
        plain = graph(("train.class_weights", weights))
        assert all("statistics" not in plain.train_files(model) for model in (*plain.pretrained, *plain.rounds))


def test_the_curriculum_reads_unlabeled_images_and_no_pseudo_labels() -> None:
    model, start = Model("town", "new", 0, 1), "results/town/pretrained/two/seed-0/model.safetensors"
    files = {f"{split}": f"results/town/data/{split}/images.csv" for split in ("labeled", "unlabeled")}
    assert graph().train_files(model) == files
    assert graph(("experiments.new.start", "pretrained")).train_files(model) == files | {"start": start}
    assert "new" in graph().showing and f"{graph().model_path(model)}/examples.h5" in graph().report_files()


def test_what_started_from_an_oracle_or_may_know_the_truth_is_one() -> None:
    flow = graph(
        *((f"experiments.{name}", True) for name in ("st.oracle", "dars.oracle")), ("experiments.st.pretrain", "oracle")
    )
    oracles = {(model.name, model.round) for model in (*flow.pretrained, *flow.rounds) if flow.is_oracle(model)}
    assert oracles == {("oracle", 0), ("st", 1), ("dars", 1), ("dars", 2)}


def test_the_report_knows_each_rounds_upper_bound() -> None:
    report = graph((BOUND, "oracle"), ("seeds", [0, 3])).report()
    for one in report.rounds:
        bound = f"results/town/pretrained/oracle/seed-{one.seed}"
        assert one.upper_bound == (bound if one.round and one.experiment in ("dars", "new") else None)
    bounds = {one.folder for one in report.rounds if one.oracle}
    assert bounds == {f"results/town/pretrained/oracle/seed-{seed}" for seed in (0, 3)}


def test_a_flow_without_experiments_pretrains_all() -> None:
    flow = Flow(parse(good(*ORACLE, ("experiments", {}))))
    assert [model.name for model in flow.pretrained] == ["base", "oracle"] and flow.rounds == []


def test_only_an_oracle_starts_from_hidden_truth() -> None:
    (line,) = told_lines(*ORACLE, ("experiments.st.pretrain", "oracle"))
    assert line == "experiments.st.pretrain: 'oracle' has learned hidden truth; only an `oracle: true` may"


def test_an_experiment_and_a_pretraining_have_names_of_their_own() -> None:
    (line,) = told_lines(("pretrain.dars", {}))
    assert line == "experiments.dars: is the name of a pretraining, too; choose another"


def test_what_no_round_inherits_is_not_asked_about() -> None:
    """A filter at the top that every round on one branch switches off, and weights that every round replaces."""
    off = [{"portion": 0.2, "prediction": {"agreement": None}, "train": {"class_weights": {"road": 2}}}]
    changes = [("prediction", {"agreement": 1}), ("experiments.dars.train", {"class_weights": {"rod": 2}})]
    changes += [("experiments.dars.rounds", off), ("experiments.st.rounds", [{"prediction": {"agreement": None}}])]
    told = parse(good(*changes))
    assert [one.prediction.agreement for one in told.experiments["dars"].rounds or ()] == [None]
