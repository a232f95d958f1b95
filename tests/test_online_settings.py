"""Settings of online experiments and of the hybrid: what they inherit, and what is said of those that make no sense."""

from typing import Any

import pytest
from test_settings import good, told_lines

from selftrain.flow import Flow
from selftrain.graph import Graph
from selftrain.settings.base import deep_merge
from selftrain.settings.config_file import parse

MIX = {"algorithm": "mean_teacher_mixing"}
ACROSS = {"name": "mean_teacher_mixing", "across": "source_to_target"}


def online(experiment: dict[str, Any], *changes: tuple[str, Any]) -> Any:
    """The experiment `mix` of the good config, as parsed."""
    return parse(good(("experiments.mix", experiment), *changes)).experiments["mix"]


def test_an_online_experiment_needs_its_algorithm_alone() -> None:
    mix = online(MIX)
    assert mix.rounds is None and mix.policy is None and mix.pretrain == "base" and mix.start is None
    assert mix.train.teacher.decay == 0.99 and mix.train.teacher.batch_norm == "own"
    assert mix.algorithm.mixing.name == "classmix" and mix.algorithm.mixing.proportion == 0.5
    assert (mix.algorithm.weight.name, mix.algorithm.threshold) == ("threshold_proportional", 0.968)


def test_only_who_learns_from_a_teacher_gets_one() -> None:
    config = parse(good(("experiments.mix", MIX)))
    assert config.pretrain["base"].train.teacher is None
    assert config.experiments["dars"].rounds[0].train.teacher is None


@pytest.mark.parametrize(
    ("where", "settings"),
    [
        ("train", {"teacher": {"decay": 0.9}}),
        ("experiments.mix.train", {"teacher": {"decay": 0.9}}),
    ],
)
def test_the_teacher_can_be_another(where: str, settings: dict[str, Any]) -> None:
    assert online(MIX, (where, settings)).train.teacher.decay == 0.9


def test_training_is_inherited_and_prediction_is_not() -> None:
    mix = online(MIX, ("train.steps", 7), ("prediction", {"flip": True}))
    assert mix.train.steps == 7 and not mix.prediction.flip


def test_a_control_can_be_online_too() -> None:
    control = online({"algorithm": "supervised", "start": "pretrained"})
    assert control.rounds is None and control.train.teacher is None


@pytest.mark.parametrize("name", ["cutmix", "cowmix", "none"])
def test_a_kind_of_mixing_is_a_name(name: str) -> None:
    assert online({"algorithm": {**ACROSS, "mixing": name}}).algorithm.mixing.name == name


def algorithm(**settings: Any) -> dict[str, Any]:
    return {"algorithm": {"name": "mean_teacher_mixing"} | settings}


ROUNDS = [{"portion": 0.2}]


def hybrid(batch_size: int = 8, rounds: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    told = {"policy": "dars", "rounds": [{"portion": 0.2} | (rounds or {}), {"portion": 0.5}]}
    return told | {"algorithm": {"name": "hybrid"} | settings, "train": {"batch_size": batch_size}}


TRUTH = {"alignment": {"target": "truth"}}
WRONG = [
    (MIX | {"rounds": ROUNDS, "policy": "st"}, "mix.rounds: 'mean_teacher_mixing' is one training beside the rounds"),
    (MIX | {"policy": "st"}, "mix.policy: belongs to rounds"),
    (MIX | {"prediction": {"flip": True}}, "mix.prediction: belongs to rounds"),
    (MIX | {"start": "pretraind"}, "mix.start: should be 'encoder' or 'pretrained', not 'pretraind'"),
    (MIX | {"train": {"teacher": None}}, "mix.train.teacher: 'mean_teacher_mixing' learns from a teacher"),
    (MIX | {"train": {"teacher": {"decay": 1}}}, "mix.train.teacher.decay: should be less than 1"),
    (MIX | {"train": {"batch_size": 3}}, "mix.train.batch_size: 3 is too small: half of it are"),
    ({"policy": "st"}, "mix.rounds: is missing; 'self_training' learns from pseudo-labels"),
    ({"algorithm": "weak_labels"}, "mix.rounds: is missing; 'weak_labels'"),
    ({"rounds": ROUNDS}, "mix.policy: is missing"),
    ({"rounds": ROUNDS, "policy": "st", "start": "encoder"}, "mix.start: a round starts from the model before it"),
    (algorithm(mixing="classmax"), "mix.algorithm.mixing: unknown name 'classmax'; did you mean 'classmix'?"),
    (algorithm(mixing={"name": "classmix", "proportion": 0}), "mix.algorithm.mixing.proportion: should be greater"),
    (algorithm(mixing={"name": "cutmix", "proportion": 1}), "mix.algorithm.mixing.proportion: should be less"),
    (algorithm(mixing={"name": "cowmix", "sigma": [0.2, 0.1]}), "mix.algorithm.mixing.sigma: the range [0.2, 0.1]"),
    (algorithm(mixing={"name": "cowmix", "sigma": [0.1, 2]}), "mix.algorithm.mixing.sigma[1]: should be less than or"),
    (algorithm(weight="pixelwize"), "mix.algorithm.weight: unknown name 'pixelwize'; did you mean 'pixelwise'?"),
    (algorithm(weight={"name": "constant", "until": 1}), "mix.algorithm.weight.until: unknown key 'until'"),
    (algorithm(across="target"), "mix.algorithm.across: should be 'target_to_target' or 'source_to_target'"),
    (algorithm(strong={"blur": [2, 1]}), "mix.algorithm.strong.blur: the range [2.0, 1.0]"),
    (algorithm(threshold=1), "mix.algorithm.threshold: should be less than 1"),
    (algorithm(**TRUTH), "mix.algorithm.alignment.target: 'truth' may be known to an experiment with `oracle: true`"),
    (algorithm(**TRUTH) | {"oracle": True}, "mix.algorithm.alignment.target: the task 'town' has no hidden truth"),
    (algorithm(alignment={"target": [1, 2]}), "mix.algorithm.alignment.target: 2 shares for the 3 classes"),
    (algorithm(alignment={"target": [0, 0, 0]}), "mix.algorithm.alignment.target: at least one class needs a share"),
    ({"algorithm": "hybrid"}, "mix.rounds: is missing; 'hybrid' learns from pseudo-labels"),
    (hybrid(start="pretrained"), "mix.algorithm.start: unknown key 'start'"),
    (hybrid(rare_classes=True, mixing="cutmix"), "mix.algorithm.rare_classes: 'cutmix' pastes no classes"),
    (hybrid(rare_classes={"temperature": 0}), "mix.algorithm.rare_classes.temperature: should be greater than"),
    (hybrid(batch_size=3), "mix.train.batch_size: 3 is too small: half of it are"),
    (hybrid(rounds={"train": {"batch_size": 2}}), "mix.rounds[0].train.batch_size: 2 is too small"),
]


@pytest.mark.parametrize(("experiment", "start"), WRONG)
def test_what_makes_no_sense_is_told_once_at_its_key(experiment: dict[str, Any], start: str) -> None:
    lines = told_lines(("experiments.mix", experiment))
    assert len(lines) == 1, lines
    assert lines[0].startswith(f"experiments.{start}"), lines


def test_one_labeled_and_one_unlabeled_image_can_be_mixed_across() -> None:
    assert online({"algorithm": ACROSS, "train": {"batch_size": 2}}).train.batch_size == 2
    assert online(algorithm(mixing="none") | {"train": {"batch_size": 2}}).train.batch_size == 2


def test_an_oracle_may_know_the_truth() -> None:
    truth = [("tasks.town.truth", True), ("tasks.town.unlabeled", {"images": "a/*", "labels": "b/*"})]
    assert online(algorithm(**TRUTH) | {"oracle": True}, *truth).oracle


def test_another_kind_of_mixing_inherits_nothing_of_the_first() -> None:
    merged = deep_merge({"mixing": {"name": "cowmix", "sigma": [1, 2]}}, {"mixing": "classmix"})
    assert merged == {"mixing": "classmix"}


def test_only_names_experiments_and_leaves_the_others_alone() -> None:
    assert told_lines(("only", ["dras"])) == ["only[0]: unknown experiment 'dras'; did you mean 'dars'?"]
    assert {model.name for model in Flow(parse(good(("only", ["st"])))).rounds} == {"st"}
    assert told_lines(("only", [])) == ["only: has too few entries"]


def test_rare_classes_are_off_until_they_are_named() -> None:
    assert online(hybrid()).algorithm.rare_classes is None
    assert online(hybrid(rare_classes=False)).algorithm.rare_classes is None
    assert online(hybrid(rare_classes={})) == online(hybrid(rare_classes=True))
    on = online(hybrid(rare_classes=True)).algorithm.rare_classes
    assert on == on.__class__()


def test_a_task_that_only_leaves_no_model_is_not_told_of() -> None:
    other = {
        "tasks.village": parse(good()).tasks["town"].model_dump(exclude_unset=True),
        "experiments.st.tasks": ["town"],
    }
    graph = Graph(parse(good(("only", ["st"]), *other.items())))
    assert [task.name for task in graph.report().tasks] == ["town"]
    assert not [file for file in graph.report_images() if "village" in file]
