"""One training in two processes is the training in one; and what happens when one of them fails."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import tiny
import torch
import trainings
from running import processes
from safetensors.torch import load_file

from selftrain.data.batches import Batches, Stream
from selftrain.errors import UserError
from selftrain.locks import held
from selftrain.settings.model import ModelSettings
from selftrain.settings.training import AugmentationSettings
from selftrain.train import examples
from selftrain.train import stage as train_stage
from selftrain.train.stage import train

PLAIN = ModelSettings(module="tiny:network", arguments={"width": 6, "dropout": 0.0})
NO_LEARNING_RATE = ["step", "images_per_second", "learning_rate"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return trainings.files(tmp_path_factory.mktemp("data"))


def trained(folder, settings, data, count, machine=tiny.NOW):
    paths = tiny.outputs(folder, **data)
    train(settings, paths, machine, count=count)
    return paths


def settings_of(kind, **told):
    """Of a network without dropout, whose draws no two processes share with one."""
    told = {"batch_size": 8, "steps": 5, "clip_gradient": 1.0} | told
    settings = trainings.settings(kind, **told)
    auxiliary = settings.model.auxiliary and settings.model.auxiliary.model_copy(update={"dropout": 0.0})
    encoder = settings.model.model_copy(update={"auxiliary": auxiliary})
    return settings.model_copy(update={"model": PLAIN if settings.model.module else encoder})


def assert_alike(one, two, rtol=1e-4, atol=1e-5):
    weights, others = load_file(one.model), load_file(two.model)
    assert weights.keys() == others.keys()
    for name, tensor in weights.items():
        torch.testing.assert_close(others[name], tensor, rtol=rtol, atol=atol, msg=lambda told, name=name: name + told)
    told, again = (pd.read_csv(paths.table).drop(columns="images_per_second") for paths in (one, two))
    pd.testing.assert_frame_equal(told, again, rtol=rtol, atol=atol)


@pytest.mark.parametrize("kind", trainings.EVERY)
def test_two_processes_train_the_model_that_one_trains(kind, tmp_path, data):
    # AdamW divides by gradients near 0, whose rounding it makes large; SGD shows the gradients themselves.
    settings = settings_of(kind, optimizer={"name": "sgd", "lr": 0.02})
    one, two = (trained(tmp_path / str(count), settings, data, count) for count in (1, 2))
    assert_alike(one, two)


def test_examples_are_those_of_one_process(tmp_path, data):
    settings = settings_of("classmix", optimizer={"name": "sgd", "lr": 0.02})
    shown = []
    for count in (1, 2):
        paths = tiny.outputs(tmp_path / str(count), **data, examples=tmp_path / f"{count}.h5")
        train(settings, paths, tiny.NOW, count=count)
        shown.append(examples.read(paths.examples))
    assert len(shown[0]) and str(shown[0]) == str(shown[1])


def test_local_batch_norm_trains_another_model_and_the_running_averages_of_all_are_kept(tmp_path, data):
    told = {"optimizer": {"name": "sgd", "lr": 0.02}, "steps": 1}
    local, whole = (settings_of("supervised", batch_norm=how, **told) for how in ("local", "synchronized"))
    one, two = (
        load_file(trained(tmp_path / how, settings, data, 2).model) for how, settings in (("l", local), ("s", whole))
    )
    mean = next(name for name in one if name.endswith("running_mean"))
    torch.testing.assert_close(one[mean], two[mean])  # halves of equal size: the mean of means is the mean
    variance = mean.replace("mean", "var")
    assert not torch.allclose(one[variance], two[variance], rtol=1e-6)


def test_adamw_too_and_an_interrupted_training_goes_on_to_the_same_bytes(tmp_path, data, monkeypatch):
    settings = settings_of("dacs", steps=25, optimizer={"lr": 0.01})
    whole = trained(tmp_path / "whole", settings, data, 2)
    reading = tiny.NOW.model_copy(update={"workers": 1})
    advance = train_stage._Run.advance

    def killed(run, batches):
        if run.step == 15:
            os.kill(os.getpid(), signal.SIGKILL)
        return advance(run, batches)

    monkeypatch.setattr(train_stage._Run, "advance", killed)
    with pytest.raises(UserError, match=r"process [01] of 2 of the training was ended \(SIGKILL\)"):
        trained(tmp_path / "again", settings, data, 2, reading)
    assert len(list((tmp_path / "resume").glob("*/state.pt"))) == 1
    monkeypatch.setattr(train_stage._Run, "advance", advance)
    again = trained(tmp_path / "again", settings, data, 2, reading)
    assert again.model.read_bytes() == whole.model.read_bytes()
    assert not list((tmp_path / "resume").iterdir())


def test_the_others_end_with_the_one_that_launched_them_and_give_the_lock_back(tmp_path, data):
    """Also where they ignore interrupts, as all do that a script runs in the background."""
    paths = tiny.outputs(tmp_path / "run", **data)
    (tmp_path / "settings.json").write_text(settings_of("supervised", steps=100_000).model_dump_json())
    (tmp_path / "machine.json").write_text(tiny.NOW.model_dump_json())
    command = [sys.executable, "-m", "selftrain", "stage", "train", "--settings", tmp_path / "settings.json"]
    command += ["--machine", tmp_path / "machine.json", "--resume", paths.resume, "--processes", "2"]
    command += [f"--input={name}={path}" for name, path in data.items()]
    command += [f"--{name}={path}" for name, path in paths.outputs().items()]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    launcher = subprocess.Popen(command, env=environment, preexec_fn=ignore_interrupts)
    while not list(paths.resume.glob("*/state.pt")):
        assert launcher.poll() is None
        time.sleep(0.05)
    both = {one.pid for one in processes() if one.parent == launcher.pid}
    lock = next(paths.resume.iterdir()) / "lock"
    with held(lock) as free:
        assert len(both) == 2 and not free
    launcher.kill()
    launcher.wait()
    for _ in range(600):
        left = both & {one.pid for one in processes()}
        with held(lock) as free:
            if free and not left:
                break
        time.sleep(0.05)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert free and not left


def ignore_interrupts():
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def test_an_error_of_one_process_is_told_as_it_is_and_ends_the_others(tmp_path, data, monkeypatch):
    advance = train_stage._Run.advance

    def broken(run, batches):
        if run.step == 2 and not run.fabric.is_global_zero:
            raise UserError("this file is broken")
        return advance(run, batches)

    monkeypatch.setattr(train_stage._Run, "advance", broken)
    with pytest.raises(UserError, match=r"^this file is broken$"):
        trained(tmp_path / "run", settings_of("supervised"), data, 2)
    with held(next((tmp_path / "resume").iterdir()) / "lock") as free:
        assert free
    assert not (tmp_path / "run/model.safetensors").exists()


def test_a_port_that_was_free_and_is_taken_by_now_does_not_matter(tmp_path, data, monkeypatch):
    environment = dict(os.environ)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr("lightning_fabric.plugins.environments.lightning.find_free_network_port", lambda: port)
        trained(tmp_path, settings_of("supervised", steps=1), data, 2)
    added = {name for name in os.environ if os.environ[name] != environment.get(name)}
    assert not {"MASTER_PORT", "TORCHELASTIC_USE_AGENT_STORE"} & added


def test_a_loss_that_is_not_finite_is_told_once(tmp_path, data):
    with pytest.raises(UserError, match=r"^step \d+: the loss 'labeled' is (nan|inf)"):
        trained(tmp_path, settings_of("supervised", optimizer={"name": "sgd", "lr": 1e30}, clip_gradient=None), data, 2)


def test_each_process_reads_its_part_of_every_batch(data):
    def batches(**part):
        streams = {"labeled": Stream(data["labeled"], tiny.READ)}
        augmentation = AugmentationSettings(crop=(24, 24), scale=(0.8, 1.5))
        return Batches(streams, {"labeled": 6}, augmentation, (0.5, 0.5, 0.5), (0, 0), **part)

    for step in (0, 3):
        whole = batches()[step]["labeled"]
        parts = [batches(part=(number, 3))[step]["labeled"] for number in range(3)]
        assert torch.equal(torch.cat([part.images for part in parts]), whole.images)
        assert torch.equal(torch.cat([part.labels for part in parts]), whole.labels)
        assert sum((part.names for part in parts), ()) == whole.names
    with pytest.raises(UserError, match="6 of 'labeled', cannot be shared by 4 processes; let each be a multiple of 4"):
        batches(part=(0, 4))
