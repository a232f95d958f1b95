"""`train.compile`: the same training, through torch.compile."""

import pandas as pd
import pytest
import tiny
import torch
import trainings
from safetensors.torch import load_file
from test_branches import own

from selftrain.errors import UserError
from selftrain.models import files
from selftrain.settings.model import ModelSettings
from selftrain.settings.training import TrainSettings
from selftrain.train import compiling, stage

QUICK = {"backend": "aot_eager"}
"""Traces forward and backward as inductor has it, and then runs torch's own operations."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return trainings.files(tmp_path_factory.mktemp("data"))


@pytest.fixture
def quick(monkeypatch):
    torch.compiler.reset()
    monkeypatch.setattr(compiling, "HOW", QUICK)


def assert_alike(one, other):
    """Up to the rounding of floats, in what is learned and in what is told."""
    theirs, ours = load_file(one.model), load_file(other.model)
    assert theirs.keys() == ours.keys()
    assert all(torch.allclose(tensor, ours[name], atol=1e-3, rtol=1e-3) for name, tensor in theirs.items())
    told, tells = (pd.read_csv(paths.table).drop(columns="images_per_second") for paths in (one, other))
    pd.testing.assert_frame_equal(told, tells, rtol=1e-3, atol=1e-3)


def test_it_is_off_unless_asked_for():
    assert not TrainSettings(steps=1).compile


@pytest.mark.parametrize("kind", trainings.EVERY)
def test_every_algorithm_learns_the_same(run, quick, kind):
    compiled = run("compiled", trainings.settings(kind, compile=True, optimizer={"name": "sgd", "lr": 0.01}))
    assert_alike(run("plain", trainings.settings(kind, optimizer={"name": "sgd", "lr": 0.01})), compiled)
    assert not any("_orig_mod" in name for name in load_file(compiled.model))
    files.load(compiled.model)


@pytest.mark.parametrize("options", [{"precision": "bf16-mixed", "channels_last": True}, {"model": own(dropout=0.5)}])
def test_ways_of_computing(run, quick, options):
    plain, compiled = (run(str(on), trainings.settings("classmix", compile=on, **options)) for on in (False, True))
    if "precision" not in options:
        assert_alike(plain, compiled)
    assert load_file(plain.model).keys() == load_file(compiled.model).keys()


def test_what_runs_is_compiled(run, monkeypatch):
    """Student and teacher, each once, whatever changes from step to step."""
    graphs = []

    def counting(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    monkeypatch.setattr(compiling, "HOW", {"backend": counting})
    run("counted", trainings.settings("dacs", compile=True, steps=12))
    assert len(graphs) == 2


def test_killed_it_ends_the_same(run, kill, quick, monkeypatch):
    monkeypatch.setattr(stage, "LOGGED_EVERY", 2)
    settings = trainings.settings("classmix", compile=True, steps=8)
    whole = run("whole", settings)
    kill(5)
    with pytest.raises(tiny.Killed):
        run("killed", settings)
    kill()
    assert run("killed", settings).model.read_bytes() == whole.model.read_bytes()


def test_without_a_compiler_it_says_what_to_install(run, tmp_path, monkeypatch):
    torch.compiler.reset()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    with pytest.raises(UserError, match=r"^train\.compile: torch cannot compile .*a C\+\+ compiler such as g\+\+"):
        run("none", trainings.settings("supervised", compile=True, steps=1))
    assert not (tmp_path / "none").exists()


def test_a_mistake_in_a_network_is_told_as_uncompiled(run, quick):
    model = own(said="sizes")
    with pytest.raises(UserError, match=r"model\.module: its branches' logits have the shapes"):
        run("mistake", tiny.stage("curriculum", model=model, compile=True))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["supervised", "classmix"])
def test_really_compiled_it_learns_the_same(run, kind):
    torch.compiler.reset()
    model = ModelSettings(module="tiny:network", arguments={"width": 6})
    plain, compiled = (
        run(str(on), trainings.settings(kind, compile=on, model=model, optimizer={"name": "sgd", "lr": 0.01}))
        for on in (False, True)
    )
    assert_alike(plain, compiled)
