"""Code as an input: what a stage's digest covers."""

import pytest

from selftrain import registry
from selftrain.code_digest import closure, code_digest
from selftrain.flow import Model
from selftrain.graph import Graph
from selftrain.settings.config_file import parse


def test_a_stage_reaches_what_it_imports_and_no_settings():
    reached = closure("selftrain.train.stage")
    assert {"selftrain.train.losses", "selftrain.data.batches", "selftrain.models.encoders"} <= reached
    assert not any(module.startswith(("selftrain.settings", "selftrain.registry")) for module in reached)


@pytest.mark.parametrize(
    "entries",
    [registry.ENCODERS, registry.DECODERS, registry.ALGORITHMS, registry.CALIBRATORS, registry.POLICIES],
)
def test_no_stage_reaches_a_method_that_was_not_chosen(entries):
    stages = [f"selftrain.{stage}.stage" for stage in ("train", "calibrate", "predict", "select", "label", "evaluate")]
    stages += ["selftrain.calibrate.reliability", "selftrain.label.choice", "selftrain.label.merge"]
    methods = {registry.module_of(path) for path in entries.values()}
    assert not methods & closure(*stages)
    for path in entries.values():
        assert registry.load_object(path)


def test_selecting_and_labeling_reach_no_torch_code():
    reached = closure("selftrain.select.stage", "selftrain.label.stage", "selftrain.label.merge")
    assert not any(module.startswith(("selftrain.models", "selftrain.train")) for module in reached)


def test_heads_are_code_of_their_algorithm_alone():
    assert "selftrain.models.heads" not in closure("selftrain.train.stage", "selftrain.predict.stage")
    assert "selftrain.models.heads" in closure(registry.module_of(registry.ALGORITHMS["weak_labels"]))


def test_digests_differ_by_what_is_chosen():
    digests = {code_digest("selftrain.select.stage", registry.module_of(path)) for path in registry.POLICIES.values()}
    assert len(digests) == len(registry.POLICIES)


def test_an_encoder_of_ours_is_code_of_the_jobs_that_run_it(folder_task):
    codes = {}
    for encoder in ("resnet18", "resnet34", "resnet38"):
        folder_task["pretrain"]["base"]["model"] = {"encoder": encoder}
        graph = Graph(parse(folder_task))
        first, last = Model("tiny", "base", 0, 0), Model("tiny", "dars", 0, 1)
        codes[encoder] = [
            graph.train_code(first),
            graph.predict_code(first, "single"),
            graph.choose_code(last),
            graph.evaluate_code(last),
        ]
    assert codes["resnet18"] == codes["resnet34"]  # timm's are no code of ours
    assert not set(codes["resnet18"]) & set(codes["resnet38"])
