import json
import logging
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
import tiny
import torch
from safetensors.torch import load, load_file

from selftrain import manifest
from selftrain.data.batches import Batches
from selftrain.errors import UserError
from selftrain.models import files
from selftrain.models.segmenter import Segmenter
from selftrain.settings.config import MachineSettings
from selftrain.settings.model import ModelSettings
from selftrain.settings.training import OptimizerSettings
from selftrain.train import stage
from selftrain.train.algorithms import Given
from selftrain.train.algorithms.self_training import SelfTraining
from selftrain.train.algorithms.supervised import Supervised
from selftrain.train.inputs import counted
from selftrain.train.length import length as steps_of
from selftrain.train.resume import Resume
from selftrain.train.stage import train
from selftrain.train.teacher import Teacher


@pytest.fixture(scope="module")
def labeled(tmp_path_factory):
    return tiny.split(tmp_path_factory.mktemp("data") / "labeled")


@pytest.fixture(scope="module")
def pseudo_labeled(labeled):
    """Inputs of self-training: an unlabeled split of seven and pseudo-labels for it."""
    folder = labeled.parent.parent
    unlabeled = tiny.split(folder / "unlabeled", (tiny.SIZE,) * 7, seed=1, label_files=False)
    names = pd.read_csv(unlabeled).image.to_list()
    labels = [tiny.blocks(tiny.SIZE, 1000 + number) for number in range(7)]
    return {
        "unlabeled": unlabeled,
        "pseudo_labels": tiny.write_pseudo_labels(folder / "pseudo_labels.h5", names, labels),
    }


@pytest.fixture
def run(tmp_path, labeled):
    """Trains in a folder of its own below `tmp_path` and returns its files."""

    def train_in(name, settings, machine=tiny.NOW, code="", **inputs):
        paths = tiny.outputs(tmp_path / name, **{"labeled": labeled} | inputs)
        train(settings, paths, machine, code)
        return paths

    return train_in


# What is learned


def test_the_loss_falls_and_the_model_predicts_the_toy(run, labeled):
    paths = run("learn", tiny.stage(steps=120, augmentation={"jitter_probability": 0}))
    losses = pd.read_csv(paths.table).labeled
    assert losses.iloc[-3:].mean() < 0.4 * losses.iloc[0]
    assert list(paths.resume.iterdir()) == []


@pytest.mark.parametrize("forwards", ["joint", "separate"])
def test_self_training_learns_from_both(run, pseudo_labeled, forwards):
    settings = tiny.stage({"name": "self_training", "forwards": forwards}, steps=60)
    table = pd.read_csv(run(forwards, settings, **pseudo_labeled).table)
    columns = ["step", "labeled", "pseudo_labeled", "learning_rate", "images_per_second"]
    assert table.columns.to_list() == columns
    assert (table.iloc[-1][["labeled", "pseudo_labeled"]] < table.iloc[0][["labeled", "pseudo_labeled"]]).all()


def test_pseudo_labels_of_other_images_are_refused(run, pseudo_labeled, labeled):
    with pytest.raises(UserError, match="its images are not those of"):
        run("other", tiny.stage("self_training"), **pseudo_labeled | {"unlabeled": labeled})
    with pytest.raises(UserError, match="needs the unlabeled split and its pseudo-labels"):
        run("none", tiny.stage("self_training"))


def test_the_table_and_the_manifest(run, labeled):
    paths = run("facts", tiny.stage(steps=25), machine=MachineSettings(threads=1))
    table = pd.read_csv(paths.table)
    assert table.columns.to_list() == ["step", "labeled", "learning_rate", "images_per_second"]
    assert table.step.to_list() == [10, 20, 25]
    assert (table.images_per_second > 0).all() and table.learning_rate.is_monotonic_decreasing
    told = json.loads(paths.manifest.read_text())
    assert told["settings"] == tiny.stage(steps=25).model_dump(mode="json")
    assert set(told["inputs"]) == {"labeled"} and len(told["inputs"]["labeled"]) == 16
    assert {"torch", "timm", "numpy"} <= set(told["packages"])
    assert (told["device"], told["threads"]) == ("cpu", 1) or torch.cuda.is_available()
    assert {"selftrain", "commit", "python", "machine", "device_name", "seconds"} <= set(told)
    assert told["network"]["parameters"] == sum(p.numel() for p in tiny.network(3).parameters())
    assert files.read_about(paths.model)["step"] == 25
    files.load(paths.model)


def test_waiting_for_images_is_told(run, caplog, monkeypatch):
    caplog.set_level(logging.INFO, "selftrain.progress")
    read, waited = Batches.__getitem__, {}
    for seconds in (0, 0.1):
        monkeypatch.setattr(Batches, "__getitem__", lambda *which, wait=seconds: (time.sleep(wait), read(*which))[1])
        told = json.loads(run(f"waits-{seconds}", tiny.stage(steps=10)).manifest.read_text())
        waited[seconds] = told["waited"]
        assert waited[seconds] <= told["seconds"]
    assert waited[0.1] >= 1 and waited[0.1] - waited[0] > 0.8
    assert "of it waiting: more machine.workers read images ahead" in caplog.messages[-1]


def test_a_commit_is_that_of_this_source_or_none(tmp_path, monkeypatch):
    """Installed below a repository of other code, that one's commit says nothing."""
    package = tmp_path / "lib/site-packages/selftrain"
    package.mkdir(parents=True)
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], [*identity, "commit", "-q", "--allow-empty", "-m", "theirs"]):
        subprocess.run(["git", "-C", tmp_path, *command], check=True)
    monkeypatch.setattr(manifest, "__file__", str(package / "manifest.py"))
    assert manifest.manifest({}, {})["commit"] is None
    monkeypatch.setattr(manifest, "__file__", str(tmp_path / "src/selftrain/manifest.py"))
    assert len(manifest.manifest({}, {})["commit"]) == 12


def test_equal_seeds_are_bit_equal_and_workers_change_nothing(run):
    settings = tiny.stage(steps=12)
    one, again, helped, other = (
        run(name, tiny.stage(steps=12, seed=seed), machine).model.read_bytes()
        for name, seed, machine in (
            ("one", 0, tiny.NOW),
            ("again", 0, tiny.NOW),
            ("helped", 0, MachineSettings(workers=2)),
            ("other", 1, tiny.NOW),
        )
    )
    assert one == again == helped != other
    later = run("round", settings.model_copy(update={"round": 1})).model.read_bytes()
    assert later != one


def test_no_steps_return_the_start(run, tmp_path):
    start = tiny.save_model(tmp_path / "start.safetensors")
    paths = run("none", tiny.stage(steps=0), start=tmp_path / "start.safetensors")
    state = load_file(paths.model)
    assert state and all(torch.equal(tensor, state[name]) for name, tensor in start.state_dict().items())
    assert pd.read_csv(paths.table).empty
    assert set(json.loads(paths.manifest.read_text())["inputs"]) == {"labeled", "start"}


@pytest.mark.parametrize("options", [{"precision": "bf16-mixed"}, {"channels_last": True}, {"clip_gradient": 0.1}])
def test_ways_of_computing(run, options):
    plain, other = run("plain", tiny.stage(steps=10)), run("other", tiny.stage(steps=10, **options))
    one, two = load_file(plain.model), load_file(other.model)
    assert all(tensor.dtype == two[name].dtype and tensor.is_contiguous() for name, tensor in one.items())
    assert any(not torch.equal(tensor, two[name]) for name, tensor in one.items()) or "channels_last" in options
    assert all(torch.allclose(tensor, two[name], atol=0.3, rtol=0.3) for name, tensor in one.items())


# Length, learning rate, class weights


def length(settings, paths):
    kind = {"supervised": Supervised, "self_training": SelfTraining}[settings.algorithm.name]
    return steps_of(settings, counted(paths), kind(settings.algorithm, Given(3)))


@pytest.mark.parametrize(
    ("algorithm", "epochs", "epochs_of", "batch_size", "steps"),
    [
        ("supervised", 1, "labeled", 4, 2),
        ("supervised", 4, "labeled", 4, 5),
        ("supervised", 0.1, "labeled", 4, 1),
        ("self_training", 2, "labeled", 4, 5),  # two labeled images a step
        ("self_training", 2, "unlabeled", 4, 7),
        ("self_training", 2, "unlabeled", 5, 7),  # the odd one is labeled
        ("self_training", 3, "labeled", 5, 5),
    ],
)
def test_epochs_become_steps(tmp_path, labeled, pseudo_labeled, algorithm, epochs, epochs_of, batch_size, steps):
    settings = tiny.stage(algorithm, steps=None, epochs=epochs, epochs_of=epochs_of, batch_size=batch_size)
    assert length(settings, tiny.outputs(tmp_path, labeled, **pseudo_labeled)) == steps


def test_epochs_of_images_that_are_not_seen(tmp_path, labeled, pseudo_labeled):
    settings = tiny.stage(steps=None, epochs=1, epochs_of="unlabeled")
    with pytest.raises(UserError, match="'supervised' sees no unlabeled images"):
        length(settings, tiny.outputs(tmp_path, labeled, **pseudo_labeled))


def test_a_batch_of_one_cannot_be_halved(run, pseudo_labeled):
    with pytest.raises(UserError, match=r"train\.batch_size: 1 leaves none for the stream 'pseudo_labeled'"):
        run("one", tiny.stage("self_training", batch_size=1), **pseudo_labeled)


def test_the_learning_rate_is_polynomial(run, monkeypatch):
    monkeypatch.setattr(stage, "LOGGED_EVERY", 1)
    settings = tiny.stage(steps=8, optimizer={"name": "sgd", "lr": 0.05, "power": 0.9})
    rates = pd.read_csv(run("poly", settings).table).learning_rate
    assert rates.to_numpy() == pytest.approx([0.05 * (1 - step / 8) ** 0.9 for step in range(8)], rel=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_the_decoder_has_a_rate_of_its_own(name):
    model = Segmenter(ModelSettings(), 3)
    settings = OptimizerSettings(name=name, lr=0.1, decoder_lr_factor=10, weight_decay=0.01)
    optimizer = stage._optimizer(model, settings)
    assert stage._set_learning_rate(optimizer, settings, 5, 10) == pytest.approx(0.1 * 0.5**0.9)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert all(rates[id(p)] == pytest.approx(0.1 * 0.5**0.9) for p in model.encoder.parameters())
    assert all(rates[id(p)] == pytest.approx(0.5**0.9) for p in model.decoder.parameters())
    assert len(rates) == len(list(model.parameters()))
    assert all(group["weight_decay"] == 0.01 for group in optimizer.param_groups)


def test_class_weights_count_in_training_and_are_one_per_class(run):
    plain, even, other = (
        run(name, tiny.stage(steps=3, class_weights=weights)).model.read_bytes()
        for name, weights in (("plain", None), ("even", (2, 2, 2)), ("other", (1, 5, 1)))
    )
    assert plain != other
    for name, tensor in load(plain).items():
        assert torch.allclose(tensor, load(even)[name], atol=1e-3)
    with pytest.raises(UserError, match="class_weights: 2 for 3 classes"):
        run("short", tiny.stage(class_weights=(1, 2)))


# The teacher


def test_the_teacher_is_what_is_saved_where_asked_for(run, monkeypatch):
    students, update = [], Teacher.update

    def recording(self, student, step):
        students.append({name: p.detach().clone() for name, p in student.named_parameters()})
        update(self, student, step)

    plain = run("plain", tiny.stage(steps=9))
    monkeypatch.setattr(Teacher, "update", recording)
    student, teacher = (
        run(who, tiny.stage(steps=9, teacher={"decay": 0.7}, evaluate=who)) for who in ("student", "teacher")
    )
    assert student.model.read_bytes() == plain.model.read_bytes()
    average = students[9]
    for step in range(1, 9):
        decay = min(1 - 1 / (step + 1), 0.7)
        average = {name: decay * average[name] + (1 - decay) * p for name, p in students[9 + step].items()}
    saved = load_file(teacher.model)
    assert all(torch.allclose(saved[name], value, atol=1e-5) for name, value in average.items())


# Interruption


@pytest.mark.parametrize(
    "train_options",
    [
        {},
        {"teacher": {"decay": 0.9}, "evaluate": "teacher"},
        {"optimizer": {"name": "sgd", "lr": 0.05}, "precision": "bf16-mixed", "clip_gradient": 1.0},
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_killed_at_random_steps_it_ends_the_same(run, kill, monkeypatch, pseudo_labeled, train_options, seed):
    monkeypatch.setattr(stage, "LOGGED_EVERY", 3)
    settings = tiny.stage("self_training", steps=25, seed=seed, **train_options)
    whole = run("whole", settings, **pseudo_labeled)
    draw = random.Random(seed)
    for steps in [draw.randrange(12) for _ in range(4)]:
        kill(steps)
        try:
            run(
                "killed",
                settings,
                MachineSettings(checkpoint_seconds=0, workers=draw.choice([0, 0, 1])),
                **pseudo_labeled,
            )
            break
        except tiny.Killed:
            assert not (whole.model.parent.parent / "killed").exists()
    kill()
    killed = whole.model.parent.parent / "killed"
    if not killed.exists():
        run("killed", settings, **pseudo_labeled)
    assert (killed / "model.safetensors").read_bytes() == whole.model.read_bytes()
    tables = [pd.read_csv(folder / "train.csv") for folder in (killed, whole.model.parent)]
    pd.testing.assert_frame_equal(*(table.drop(columns="images_per_second") for table in tables))
    assert list(whole.resume.iterdir()) == []


@pytest.mark.parametrize(
    "error", [OSError(5, "Input/output error"), RuntimeError("can't allocate memory"), MemoryError()]
)
def test_a_checkpoint_that_cannot_be_read_now_is_kept(tmp_path, monkeypatch, error):
    checkpoint = Resume(tmp_path, 0)
    checkpoint.save({"step": 3})
    content = checkpoint.file.read_bytes()

    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(type(error)):
        checkpoint.load()
    assert checkpoint.file.read_bytes() == content


@pytest.mark.parametrize("damage", ["emptied", "cut", "replaced"])
def test_a_broken_checkpoint_is_told_and_the_training_begins_anew(
    run, kill, monkeypatch, caplog, pseudo_labeled, damage
):
    monkeypatch.setattr(stage, "LOGGED_EVERY", 3)
    settings = tiny.stage("self_training", steps=8)
    whole = run("whole", settings, **pseudo_labeled)
    kill(5)
    with pytest.raises(tiny.Killed):
        run("killed", settings, MachineSettings(checkpoint_seconds=0), **pseudo_labeled)
    (state,) = whole.resume.glob("*/state.pt")
    content = state.read_bytes()
    state.write_bytes({"emptied": b"", "cut": content[: len(content) // 2], "replaced": bytes(range(256))}[damage])
    kill()
    run("killed", settings, **pseudo_labeled)
    assert f"{state}: not readable" in caplog.text and "the training begins anew" in caplog.text
    assert (whole.model.parent.parent / "killed/model.safetensors").read_bytes() == whole.model.read_bytes()


def test_a_checkpoint_is_used_and_only_for_the_same_training(run, kill, caplog, tmp_path, labeled):
    settings = tiny.stage(steps=25)
    kill(13)
    with pytest.raises(tiny.Killed):
        run("first", settings, code="a")
    kill()
    caplog.set_level(logging.INFO)
    other_data = tiny.split(tmp_path / "other", seed=5)
    run("settings", tiny.stage(steps=25, optimizer={"lr": 0.03}), code="a")
    run("code", settings, code="b")
    run("inputs", settings, code="a", labeled=other_data)
    assert "going on" not in caplog.text
    run("first", settings, code="a")
    assert "going on from step 10" in caplog.text


def test_no_checkpoint_before_it_is_due(run, kill, caplog):
    kill(13)
    with pytest.raises(tiny.Killed):
        run("first", tiny.stage(), MachineSettings(checkpoint_seconds=1000))
    kill()
    caplog.set_level(logging.INFO)
    run("first", tiny.stage())
    assert "going on" not in caplog.text


def test_a_second_process_waits_until_the_first_is_killed(run, caplog):
    """Its loader workers live on for seconds after the kill; the lock must not."""
    fork = multiprocessing.get_context("fork")
    running = fork.Event()

    def first():
        def hang(self, batches):
            running.set()
            time.sleep(60)

        stage._Run.advance = hang
        run("first", tiny.stage(), MachineSettings(workers=2))

    process = fork.Process(target=first)
    process.start()
    assert running.wait(60)
    killed: list[float] = []

    def kill():
        while "waiting for its end" not in caplog.text:
            time.sleep(0.05)
        time.sleep(0.5)
        killed.append(time.monotonic())
        process.kill()
        process.join()

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    assert run("second", tiny.stage()).model.exists()
    assert killed and f"process {process.pid} on " in caplog.text


def test_what_finished_unheard_is_taken_not_trained_again(run, caplog, kill, tmp_path, labeled):
    kept = {"finished": tmp_path / "finished"}
    first = run("first", tiny.stage(), **kept)
    kill(0)  # no step may be taken
    caplog.set_level(logging.INFO)
    second = run("second", tiny.stage(), **kept)
    assert "finished already" in caplog.text
    for name, path in second.outputs().items():
        assert path.read_bytes() == first.outputs()[name].read_bytes()
        assert path.stat().st_ino != first.outputs()[name].stat().st_ino
    with pytest.raises(tiny.Killed):
        run("other", tiny.stage(optimizer={"lr": 0.03}), **kept)
    with pytest.raises(tiny.Killed):
        run("no folder", tiny.stage())


def test_two_experiments_with_one_training_do_it_once_also_side_by_side(run, tmp_path, monkeypatch):
    fork = multiprocessing.get_context("fork")
    steps, advance = fork.Value("i"), stage._Run.advance

    def counted(self, batches):
        with steps:
            steps.value += 1
        time.sleep(0.02)
        return advance(self, batches)

    monkeypatch.setattr(stage._Run, "advance", counted)
    names, told = ("one", "other"), {"finished": tmp_path / "finished"}
    both = [fork.Process(target=run, args=(name, tiny.stage(steps=25)), kwargs=told) for name in names]
    for process in both:
        process.start()
    for process in both:
        process.join()
    one, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in names)
    assert one == other and steps.value == 25


@pytest.mark.parametrize("clip_gradient", [None, 1.0])
def test_a_training_that_diverges_stops_and_leaves_nothing(run, tmp_path, clip_gradient):
    with pytest.raises(UserError) as caught:
        run("nan", tiny.stage(optimizer={"name": "sgd", "lr": 1e30}, clip_gradient=clip_gradient))
    told = str(caught.value)
    assert "the loss 'labeled' is nan; images: " in told and "labeled-" in told and "learning rate" in told
    assert int(told.split(":")[0].removeprefix("step ")) in range(2, 11)
    assert not (tmp_path / "nan").exists()


def test_a_last_step_that_ruins_the_weights_leaves_nothing(run, tmp_path, monkeypatch):
    """The loss of a step is of the weights before it."""
    advance = stage._Run.advance

    def ruining(self, batches):
        terms = advance(self, batches)
        self.segmenter.encoder.network[0].weight.data[0, 0, 0, 0] = torch.inf
        return terms

    monkeypatch.setattr(stage._Run, "advance", ruining)
    with pytest.raises(UserError, match=r"^step 1: NaN or infinite weights in encoder\.network\.0\.weight"):
        run("nan", tiny.stage(steps=1))
    assert not (tmp_path / "nan").exists()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_really_killed_at_random_times_it_ends_the_same(tmp_path, labeled, workers):
    settings = tiny.stage(steps=600, teacher={"decay": 0.9}, evaluate="teacher")
    whole = tiny.outputs(tmp_path / "whole", labeled)
    train(settings, whole, tiny.NOW)
    killed = tiny.outputs(tmp_path / "killed", labeled)
    (tmp_path / "settings.json").write_text(settings.model_dump_json())
    machine = MachineSettings(checkpoint_seconds=0, workers=workers)
    (tmp_path / "machine.json").write_text(machine.model_dump_json())
    command = [sys.executable, "-m", "selftrain", "stage", "train", "--settings", tmp_path / "settings.json"]
    command += ["--machine", tmp_path / "machine.json", "--resume", killed.resume, "--input", f"labeled={labeled}"]
    command += ["--model", killed.model, "--table", killed.table, "--manifest", killed.manifest]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    draw, kills = random.Random(workers), 0
    while not killed.model.exists():
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        if kills < 3:
            before = saved(killed.resume)
            while process.poll() is None and saved(killed.resume) == before:
                time.sleep(0.002)
            time.sleep(draw.uniform(0, 0.3))
            process.send_signal(signal.SIGKILL)
            kills += 1
        _, said = process.communicate(timeout=120)
        assert process.returncode in (0, -signal.SIGKILL), said
    assert kills > 1 and "going on from step" in said
    assert killed.model.read_bytes() == whole.model.read_bytes()
    assert list(killed.resume.iterdir()) == []


def saved(folder):
    """When the newest checkpoint was written."""
    return max((file.stat().st_mtime_ns for file in folder.glob("*/state.pt")), default=0)
