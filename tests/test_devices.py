import multiprocessing
import os
import threading

import pytest

from selftrain import devices
from selftrain.devices import _locked_one, _visible_ids, leased_device

fork = multiprocessing.get_context("fork")


class Holder:
    """A process that leases one of the ids, tells which, and holds it until let go."""

    def __init__(self, ids, folder):
        self.told, theirs = fork.Pipe()
        self.process = fork.Process(target=self._hold, args=(ids, folder, theirs))
        self.process.start()

    @staticmethod
    def _hold(ids, folder, told):
        with _locked_one(ids, folder) as own:
            told.send(own)
            told.recv()

    def own(self, timeout=30):
        return self.told.recv() if self.told.poll(timeout) else None

    def let_go(self):
        self.told.send("go")
        self.process.join()


@pytest.fixture
def hold(tmp_path, monkeypatch):
    wait = devices.time.sleep
    monkeypatch.setattr(devices.time, "sleep", lambda seconds: wait(0.02))
    holders = []

    def start(ids=("0", "1")):
        holders.append(Holder(list(ids), tmp_path))
        return holders[-1]

    yield start
    for holder in holders:
        holder.process.kill()
        holder.process.join()


def test_each_job_has_a_device_of_its_own_and_others_wait(hold):
    first, second = hold(), hold()
    assert {first.own(), second.own()} == {"0", "1"}
    third = hold()
    assert third.own(timeout=0.3) is None
    first.let_go()
    assert third.own() in ("0", "1")


def test_a_killed_job_gives_its_device_back(hold):
    first = hold(["3"])
    assert first.own() == "3"
    waiting = hold(["3"])
    assert waiting.own(timeout=0.3) is None
    first.process.kill()
    assert waiting.own() == "3"


def test_a_child_of_a_killed_job_does_not_keep_its_device(hold, tmp_path):
    """As loader workers do, which outlive a killed training by seconds."""
    told, theirs = fork.Pipe()

    def job():
        with _locked_one(["0"], tmp_path):
            worker = fork.Process(target=threading.Event().wait, args=(60,))
            worker.start()
            theirs.send(worker.pid)
            worker.join()

    process = fork.Process(target=job)
    process.start()
    worker = told.recv()
    process.kill()
    process.join()
    try:
        assert hold(["0"]).own() == "0"
    finally:
        os.kill(worker, 9)


@pytest.mark.parametrize(
    ("listed", "count", "ids"),
    [
        (None, 0, []),
        (None, 2, ["0", "1"]),
        ("", 0, []),
        ("2", 1, ["2"]),
        ("0, 3", 2, ["0", "3"]),
        ("GPU-ab,GPU-cd", 2, ["GPU-ab", "GPU-cd"]),
    ],
)
def test_the_ids_to_choose_from(monkeypatch, listed, count, ids):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if listed is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert _visible_ids(count) == ids


@pytest.mark.parametrize("given", [None, "5"])
def test_the_lease_steps_aside_for_one_device_or_none(monkeypatch, tmp_path, given):
    monkeypatch.setattr(devices.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1 if given else 0)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    with leased_device():
        assert os.environ.get("CUDA_VISIBLE_DEVICES") == given
    assert not list(tmp_path.iterdir())


def test_the_lease_is_told_to_cuda(monkeypatch, tmp_path, hold):
    monkeypatch.setattr(devices.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    with leased_device():
        assert os.environ["CUDA_VISIBLE_DEVICES"] in ("4", "6")
