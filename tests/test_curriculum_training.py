"""Whole trainings with the strategic curriculum: turns, tables, examples, epochs, resuming."""

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_branches import cosine, own
from test_curriculum import OFF, make
from torch.nn import functional as F

from selftrain.data.batches import Batches, Stream
from selftrain.data.tables import write_statistics
from selftrain.errors import UserError
from selftrain.models import files
from selftrain.settings.curriculum import CurriculumSettings
from selftrain.settings.training import AugmentationSettings
from selftrain.train import examples, stage
from selftrain.train.algorithms import Given
from selftrain.train.algorithms.curriculum import Curriculum
from selftrain.train.stage import train

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    labeled, statistics = tiny.split(folder / "labeled"), folder / "classes.csv"
    write_statistics(tiny.READ, labeled, statistics, folder / "statistics.h5")
    unlabeled = tiny.split(folder / "unlabeled", (tiny.SIZE,) * 7, seed=1, label_files=False)
    return {"labeled": labeled, "unlabeled": unlabeled, "statistics": statistics}


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 99), size=st.integers(1, 7), share=st.floats(0.1, 0.9))
def test_a_stream_goes_on_where_it_stopped_whatever_the_turns(splits, seed, size, share):
    """Every image once an epoch of what is drawn, in the order of a stream that has all turns."""
    streams = {"a": Stream(splits["labeled"], tiny.READ), "b": Stream(splits["labeled"], tiny.READ)}
    of_a = np.random.default_rng(seed).random(16) < share
    told = ({"a": size, "b": 2}, AugmentationSettings(crop=(8, 8)), (0.5,) * 3, (seed, 0))
    batches, all_turns = Batches(streams, *told, {"a": of_a, "b": ~of_a}), Batches(streams, *told)
    seen = {"a": [], "b": []}
    for number in range(16):
        ((stream, found),) = batches[number].items()
        assert stream == ("a" if of_a[number] else "b") and len(found.names) == len(found.images) == told[0][stream]
        seen[stream].append(found.names)
    for stream, names in seen.items():
        assert names == [all_turns[number][stream].names for number in range(len(names))]
        flat = sum(names, ())
        assert all(len(set(flat[start : start + 5])) == 5 for start in range(0, len(flat) - 4, 5))


@pytest.fixture
def run(tmp_path, splits):
    def train_in(name, model=None, algorithm=None, inputs=None, **told):
        paths = splits | {"examples": tmp_path / name / "examples.h5"} | (inputs or {})
        told = tiny.stage({"name": "curriculum"} | (algorithm or {}), model=model or own(dropout=0.1), **told)
        train(told, made := tiny.outputs(tmp_path / name, **paths), tiny.NOW)
        return made

    return train_in


def results(paths):
    table = pd.read_csv(paths.table).drop(columns="images_per_second")
    return paths.model.read_bytes(), paths.examples.read_bytes(), table.to_csv()


def test_the_table_has_empty_cells_where_no_step_drew_a_stream(run, monkeypatch):
    """Of each step, and of ten steps: the mean over those that had a term."""
    told = {"steps": 40, "batch_size": 2, "algorithm": {"source_ratio": {"start": 1, "end": 0}}}
    windows = pd.read_csv(run("windows", **told).table)
    monkeypatch.setattr(stage, "LOGGED_EVERY", 1)
    each = pd.read_csv(run("each", **told).table)
    turns = make(source_ratio={"start": 1, "end": 0}).turns(40)
    always = {"step", "learning_rate", "images_per_second", "branch_similarity"}
    own_columns = {name: {name, f"{name}_agreement", f"{name}_retained"} for name in turns}
    assert set(each) == set(windows) == always | own_columns["labeled"] | own_columns["unlabeled"]
    assert each[sorted(always)].notna().all(None)
    for stream, drawn in turns.items():
        assert all(np.array_equal(each[column].notna(), drawn) for column in own_columns[stream])
    assert windows.labeled.isna().to_list() == [False, False, True, True]  # gamma is 0 from half-way
    means = each.groupby((each.step - 1) // 10).mean()
    for column in (own_columns["labeled"] | own_columns["unlabeled"] | {"branch_similarity"}) & set(windows):
        np.testing.assert_allclose(windows[column], means[column], rtol=1e-6)


@given(drawn=st.lists(st.booleans(), max_size=60))
def test_steps_are_shown_that_drew_unlabeled_images(drawn):
    shown = examples.shown_steps(np.array(drawn, bool))
    wanted = [max(1, round(len(drawn) * part / 4)) for part in (1, 2, 3, 4)]
    before = [[at + 1 for at, one in enumerate(drawn) if one and at < step] for step in wanted]
    assert shown == {steps[-1] for steps in before if steps} and len(shown) <= 4


def test_examples_are_of_steps_that_drew_unlabeled_images(run):
    kept = examples.read(run("kept", steps=30, batch_size=2).examples)
    turns = make().turns(30)["unlabeled"]
    assert set(kept) == examples.shown_steps(turns) and all(turns[step - 1] for step in kept) and len(kept) > 1
    for one in kept.values():
        assert one["image"].shape == (24, 24, 3) and set(np.unique(one["agreement"])) <= {128, 255}
        assert np.array_equal(one["label"], np.where(one["agreement"] == 255, one["predicted"], 255))
    assert examples.read(run("none", steps=3, algorithm={"source_ratio": {"start": 1, "end": 1}}).examples) == {}


@pytest.mark.parametrize(
    "options", [{"steps": 14}, {"steps": 13, "algorithm": OFF, "class_weights": "small_and_frequent"}]
)
def test_killed_it_ends_the_same(run, kill, monkeypatch, options):
    monkeypatch.setattr(stage, "LOGGED_EVERY", 2)
    whole = run("whole", **options)
    for steps in (5, 4):
        kill(steps)
        with pytest.raises(tiny.Killed):
            run("killed", **options)
    kill()
    assert results(run("killed", **options)) == results(whole)


def recorded(monkeypatch):
    """The steps that trainings from now on take."""
    steps, loss = [], Curriculum.loss
    monkeypatch.setattr(Curriculum, "loss", lambda self, step: steps.append(step) or loss(self, step))
    return steps


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_batch_is_whole_and_of_one_stream(run, monkeypatch, batch_size):
    steps = recorded(monkeypatch)
    run("whole", steps=12, batch_size=batch_size)
    taken = [(stream, len(batch.images)) for step in steps for stream, batch in step.batches.items()]
    assert len(taken) == 12 and set(taken) == {("labeled", batch_size), ("unlabeled", batch_size)}


@pytest.mark.parametrize(("epochs_of", "batches"), [("labeled", 3), ("unlabeled", 4)])
def test_epochs_are_of_the_batches_that_are_drawn(run, epochs_of, batches):
    """Of 5 labeled or 7 unlabeled images, 4 a step: as many steps as it takes to see them twice."""
    steps = pd.read_csv(run("epochs", steps=None, epochs=2, epochs_of=epochs_of).table).step.iloc[-1]
    turns = Curriculum(CurriculumSettings(), Given(3, place=(0, 0))).turns(steps)
    assert batches <= turns[epochs_of].sum() <= batches + 2 and steps > batches


def test_epochs_of_what_is_never_drawn_are_refused(run):
    algorithm = {"name": "curriculum", "source_ratio": {"start": 0, "end": 0}}
    with pytest.raises(UserError, match=r"train\.epochs_of: hardly a step draws labeled images"):
        run("never", algorithm=algorithm, steps=None, epochs=2, epochs_of="labeled")


def test_one_branch_has_nothing_to_mine_by(run):
    with pytest.raises(UserError, match=r"algorithm\.(target_easy|source_hard)_mining: the model has one branch"):
        run("one", model=tiny.MODEL)


@pytest.mark.parametrize("stream", ["labeled", "unlabeled"])
def test_a_step_follows_the_gradient_of_the_loss_and_of_the_cosine(run, monkeypatch, tmp_path, stream):
    """SGD: w - lr (dloss/dw + beta dcos/dw); the latter in closed form, of the branches' filters alone."""
    told = {"start": tmp_path / "start.safetensors"}, {"name": "sgd", "lr": 0.1, "momentum": 0, "weight_decay": 0}
    network, steps = tiny.save_model(told[0]["start"], own()), recorded(monkeypatch)
    said = {"model": own(), "steps": 1, "branch_similarity": 0.7}
    said["algorithm"] = {"source_ratio": {"start": float(stream == "labeled")}}
    after = files.load(run(stream, inputs=told[0], optimizer=told[1], **said).model)[0]
    batch = steps[0].batches[stream]
    answers = network.train()(batch.images, apart=True)
    grown = [F.interpolate(one, size=(24, 24), mode="bilinear", align_corners=False) for one in answers.branches]
    labels, agreed = batch.labels.long(), grown[0].argmax(1) == grown[1].argmax(1)
    if stream == "unlabeled":
        labels = torch.where(agreed & (labels != 255), sum(grown).argmax(1), 255)
    sum(F.cross_entropy(one, labels, ignore_index=255) for one in grown).backward()
    flat = [branch.weight.detach().double().numpy().ravel() for branch in network.branches]
    for at, branch in enumerate(network.branches):
        one, other = flat[at], flat[1 - at]
        slope = other / np.sqrt((one @ one) * (other @ other)) - cosine(one, other) * one / (one @ one)
        branch.weight.grad += 0.7 * torch.from_numpy(slope).float().view_as(branch.weight)
    for before, now in zip(network.parameters(), after.parameters(), strict=True):
        torch.testing.assert_close(now, before - 0.1 * before.grad, atol=1e-6, rtol=1e-5)
