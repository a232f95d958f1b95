"""How images are predicted, for pseudo-labels and for scores: what a config says of it, and where the files are."""

import math
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_settings import good, told_lines

from selftrain.flow import Flow, Model
from selftrain.graph import Graph
from selftrain.settings.config import Config
from selftrain.settings.config_file import parse
from selftrain.settings.prediction import InferenceSettings, PatchSettings, PredictionSettings, SpatialPriorSettings

SCHEMA = jsonschema.Draft202012Validator(Config.model_json_schema())
PATCHES = {"size": [64, 96], "count": 20}
ROUND_1, ROUND_2 = (Model("town", "dars", 0, number) for number in (1, 2))


def predictions(*changes: tuple[str, Any]) -> list[PredictionSettings]:
    """How the two rounds of an experiment predict."""
    return [one.prediction for one in parse(good(*changes)).experiments["dars"].rounds]


def test_a_round_overrides_the_experiment_and_the_experiment_the_default() -> None:
    plain, patched = predictions(("experiments.dars.rounds.1.prediction", {"patches": PATCHES}))
    assert plain == PredictionSettings()
    assert patched == PredictionSettings(patches=PatchSettings(size=(64, 96), count=20))
    one, two = predictions(
        ("prediction", {"flip": True, "scales": [0.5, 1], "patches": PATCHES}),
        ("experiments.dars.prediction", {"scales": [2], "patches": {"combine": "decisions"}}),
        ("experiments.dars.rounds.1.prediction", {"flip": False, "patches": {"count": 7}}),
    )
    assert (one.flip, one.scales, two.flip, two.scales) == (True, (2.0,), False, (2.0,))
    assert one.patches == PatchSettings(size=(64, 96), count=20, combine="decisions")
    assert two.patches == PatchSettings(size=(64, 96), count=7, combine="decisions")


def test_null_turns_off_what_is_inherited() -> None:
    inherited = {"patches": PATCHES, "spatial_prior": {}}
    one, two = predictions(
        ("experiments.dars.prediction", inherited), ("experiments.dars.rounds.1.prediction", {"patches": None})
    )
    assert one.patches is not None
    assert (two.patches, two.spatial_prior) == (None, SpatialPriorSettings())
    one, two = predictions(
        ("prediction", inherited), ("experiments.dars.prediction", dict.fromkeys(("patches", "spatial_prior")))
    )
    assert one == two == PredictionSettings()


def test_evaluation_is_the_same_for_every_model_whatever_an_experiment_predicts_with() -> None:
    changes = ("experiments.dars.prediction", {"flip": True, "patches": PATCHES}), ("prediction.scales", [2])
    for evaluation in ({}, {"flip": True, "patches": PATCHES}):
        graph = Graph(parse(good(*changes, ("evaluation", evaluation), ("seeds", [5]))))
        for model in (*graph.pretrained, *graph.rounds):
            said = graph.evaluate(model)
            assert (said.evaluation, said.seed) == (InferenceSettings(**evaluation), 5)


def test_each_round_reads_the_predictions_that_it_asks_for() -> None:
    graph = Graph(parse(good(("shards", 2), ("experiments.dars.rounds.1.prediction", {"patches": PATCHES}))))
    paths = [graph.prediction_paths(model) for model in (ROUND_1, ROUND_2)]
    assert [path.split("/")[-3:] for path in (paths[0][0], paths[1][1])] == [
        ["predictions", "single", "shard-0-of-2.h5"],
        ["predictions", "sisc-20x64x96", "shard-1-of-2.h5"],
    ]
    assert "/pretrained/base/seed-0/" in paths[0][0] and "/dars/seed-0/round-1/" in paths[1][0]
    said = graph.predict(ROUND_1, "sisc-20x64x96", 1, 2)
    assert (said.prediction, said.seed, said.shard, said.shards) == (graph.round(ROUND_2).prediction, 0, 1, 2)
    assert graph.choose(ROUND_2, 1, 2) == said


def test_statistics_are_read_for_a_spatial_prior_and_a_second_pass_is_made_for_the_normalized_choice() -> None:
    def flow(*changes: tuple[str, Any]) -> Flow:
        return Flow(parse(good(*changes)))

    prior = ("experiments.dars.rounds.1.prediction", {"spatial_prior": {}})
    chosen = ("experiments.dars.policy", {"name": "cbst", "choice": "normalized"})
    both = flow(prior, chosen)
    assert set(both.choose_files(ROUND_1)) == {"model", "images"}
    assert set(both.choose_files(ROUND_2)) == {"model", "images", "statistics"}
    assert both.choose_files(ROUND_2)["statistics"] == "results/town/data/labeled/statistics.h5"
    assert both.chosen_file(ROUND_2, 0) == {"chosen": "results/town/dars/seed-0/round-2/chosen-0-of-1.h5"}
    for plain in (flow(prior), flow(prior, ("experiments.dars.policy", "cbst"))):
        assert plain.chosen_file(ROUND_2, 0) == {}


# The names of folders of predictions


def near(*values: float) -> st.SearchStrategy[float]:
    """One of the values, or its neighbor among the floats."""
    return st.sampled_from([number for value in values for number in (value, math.nextafter(value, 0))])


COUNTS = st.sampled_from([1, 5, 16, 50, 64])
PATCH = st.builds(
    PatchSettings,
    size=st.tuples(COUNTS, COUNTS),
    count=COUNTS,
    whole_image=st.booleans(),
    combine=st.sampled_from(["probabilities", "decisions"]),
    memory=st.sampled_from([1, 50, 512]),
)
PRIOR = st.builds(SpatialPriorSettings, smoothing=near(0.02, 1e-5) | st.just(0), weight=near(0.5, 1))
INFERENCE: dict[str, Any] = {
    "flip": st.booleans(),
    "scales": st.lists(near(0.5, 1, 1e-5) | st.floats(1e-9, 1e9), min_size=1, max_size=3).map(tuple),
    "patches": st.none() | PATCH,
}
SETTINGS = {
    InferenceSettings: st.builds(InferenceSettings, **INFERENCE),
    PredictionSettings: st.builds(PredictionSettings, **INFERENCE, spatial_prior=st.none() | PRIOR),
}


@pytest.mark.parametrize("kind", SETTINGS)
@given(data=st.data())
def test_modes_are_equal_where_settings_are(kind: type[InferenceSettings], data: st.DataObject) -> None:
    one, drawn = data.draw(SETTINGS[kind]), data.draw(SETTINGS[kind])
    varied = data.draw(st.sets(st.sampled_from(list(kind.model_fields))))
    other = one.model_copy(update={name: getattr(drawn, name) for name in varied})
    assert (one.mode == other.mode) == (one == other), (one, other)
    assert kind.model_validate_json(one.model_dump_json()).mode == one.mode
    assert "/" not in one.mode and " " not in one.mode


@pytest.mark.parametrize(
    "said",
    [
        lambda number: {"scales": [2, number]},
        lambda number: {"scales": [number]},
        lambda number: {"spatial_prior": {"smoothing": number}},
        lambda number: {"spatial_prior": {"weight": number}},
    ],
    ids=["second scale", "scale", "smoothing", "weight"],
)
@pytest.mark.parametrize("number", [1.0, 0.02])
def test_the_nearest_numbers_have_modes_of_their_own(said: Callable[[float], dict[str, Any]], number: float) -> None:
    one, other = (PredictionSettings(**said(value)) for value in (number, math.nextafter(number, 0)))
    assert one.mode != other.mode


def test_modes_read_well() -> None:
    assert PredictionSettings().mode == InferenceSettings().mode == "single"
    assert PredictionSettings(scales=(0.75, 1), flip=True).mode == "scales-0.75-1-flip"
    assert PredictionSettings(patches=PATCHES).mode == "sisc-20x64x96"
    assert PredictionSettings(patches=PATCHES, spatial_prior={}).mode == "sisc-20x64x96-prior-0.02"


# What is refused


PLACES = ["prediction", "experiments.dars.prediction", "experiments.dars.rounds.1.prediction", "evaluation"]
WRONG = [
    ("patches", {"size": [64, 96], "count": 0}, "patches.count: should be greater than or equal to 1, not 0"),
    ("patches", {"size": [64, 96], "combine": "sum"}, "patches.combine: should be 'probabilities' or 'decisions', not"),
    ("patches", {"size": [64, 96], "cuont": 2}, "patches.cuont: unknown key 'cuont'; did you mean 'count'?"),
    ("patches", {"count": 2}, "patches.size: is missing"),
    ("patches", {"size": [64, 0]}, "patches.size[1]: should be greater than or equal to 1, not 0"),
    ("patches", {"size": 64}, "patches.size: should be a list, not 64"),
    ("patches", {"size": [64, 96], "memory": 0}, "patches.memory: should be greater than or equal to 1, not 0"),
    ("patches", 20, "patches: should be a mapping of keys, not 20"),
    ("spatial_prior", {"weight": 0}, "spatial_prior.weight: should be greater than 0, not 0"),
    ("spatial_prior", {"smoothing": 2}, "spatial_prior.smoothing: should be less than or equal to 1, not 2"),
    ("spatial_prior", {"smoothin": 0.1}, "spatial_prior.smoothin: unknown key 'smoothin'; did you mean 'smoothing'?"),
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("key", "value", "line"), WRONG)
def test_a_wrong_value_is_one_clear_line(place: str, key: str, value: Any, line: str) -> None:
    (said,) = told_lines((f"{place}.{key}", value))
    if place == "evaluation" and key == "spatial_prior":
        line = "spatial_prior: unknown key 'spatial_prior'"  # of pseudo-labels alone
    assert said.startswith(f"{place.replace('.1', '[1]')}.{line}")
    assert not SCHEMA.is_valid(good((f"{place}.{key}", value)))


def test_the_json_schema_takes_predictions_everywhere() -> None:
    said = {"flip": True, "patches": {**PATCHES, "whole_image": True, "combine": "decisions"}}
    whole = good(
        *[(place, dict(said)) for place in PLACES], ("experiments.dars.prediction.spatial_prior", {"weight": 0.5})
    )
    assert SCHEMA.is_valid(whole)
    assert Config.model_validate_json(parse(whole).model_dump_json()) == parse(whole)


def test_weak_labels_need_an_encoder() -> None:
    own = ("pretrain.own", {"model": {"module": "own:Unet"}})
    line = "experiments.dars.algorithm: 'weak_labels' needs an encoder's features"
    for algorithm in ("weak_labels", {"name": "weak_labels", "eta": 0.1}):
        chosen = ("experiments.dars.algorithm", algorithm)
        (said,) = told_lines(chosen, ("pretrain.base.model.module", "own:Unet"))
        assert said.startswith(line)
        (said,) = told_lines(chosen, own, ("experiments.dars.pretrain", "own"), ("experiments.st.pretrain", "base"))
        assert said.startswith(line)
        other = parse(good(chosen, own, ("experiments.dars.pretrain", "base"), ("experiments.st.pretrain", "own")))
        assert other.experiments["dars"].algorithm.name == "weak_labels"


def test_the_weak_labels_of_a_round_are_those_of_its_algorithm() -> None:
    eta = {"name": "weak_labels", "eta": 0.25}
    graph = Graph(parse(good(("experiments.dars.algorithm", eta))))
    assert [graph.label(model).eta for model in graph.rounds if model.name == "dars"] == [0.25, 0.25]
    assert [graph.label(model).eta for model in graph.rounds if model.name == "st"] == [None]
