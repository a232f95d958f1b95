"""The lease of devices, among many processes over ids that no machine has."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from selftrain import devices, locks
from selftrain.devices import VISIBLE, _leased, _visible_ids, leased_device
from selftrain.errors import UserError

fork = multiprocessing.get_context("fork")
sleep = time.sleep


class Holder:
    """A process that leases some of the ids, tells which, and holds them until let go; it may have a child."""

    def __init__(self, ids, count, folder, child=None):
        self.told, theirs = fork.Pipe()
        self.waits = fork.Event()
        """Set once it has the turn, and too few devices are free."""
        self.process = fork.Process(target=self._hold, args=(ids, count, folder, theirs, child))
        self.process.start()

    def _hold(self, ids, count, folder, told, child):
        devices.time.sleep = lambda seconds: (self.waits.set(), sleep(0.01))
        with _leased(ids, count, folder) as own:
            if child is not None:
                ready = fork.Event()
                process = fork.Process(target=child, args=(ready,))
                process.start()
                assert ready.wait(30)
                told.send(process.pid)
            told.send(own)
            told.recv()

    def own(self, timeout=30):
        return self.told.recv() if self.told.poll(timeout) else None

    def let_go(self):
        self.told.send("go")
        self.process.join()

    def kill(self):
        self.process.kill()
        self.process.join()


@pytest.fixture
def hold(tmp_path):
    holders = []

    def start(ids=("0", "1"), count=1, child=None):
        holders.append(Holder(ids, count, tmp_path, child))
        return holders[-1]

    yield start
    for holder in holders:
        holder.kill()


def test_each_job_has_a_device_of_its_own_and_others_wait(hold):
    first, second = hold(), hold()
    assert {*first.own(), *second.own()} == {"0", "1"}
    third = hold()
    assert third.waits.wait(30) and third.own(timeout=0) is None
    first.let_go()
    assert third.own() in (["0"], ["1"])


def test_a_job_of_two_devices_is_not_overtaken_by_those_of_one(hold):
    first, second = hold(), hold()
    assert first.own() and second.own()
    both = hold(count=2)
    assert both.waits.wait(30) and both.own(timeout=0) is None
    later = hold()
    first.let_go()
    assert later.own(timeout=0.3) is None, "the device that is free is for who asked first"
    second.let_go()
    assert both.own() == ["0", "1"]
    both.let_go()
    assert later.own()


def test_a_killed_job_gives_its_devices_back_also_while_it_waits_for_more(hold):
    first = hold()
    assert first.own() == ["0"]
    both = hold(count=2)
    assert both.waits.wait(30), "has one, waits for the other, and has the turn"
    both.kill()
    other = hold()
    assert other.own() == ["1"]
    first.kill()
    assert hold().own() == ["0"]


def work_on(ready):
    ready.set()
    sleep(60)


def let_go_and_work_on(ready):
    locks.let_go()
    work_on(ready)


def test_a_child_that_may_still_work_keeps_the_device_of_a_killed_job_and_a_reader_does_not(hold):
    for child, free in ((work_on, False), (let_go_and_work_on, True)):
        first = hold(["0"], child=child)
        pid = first.own()
        assert first.own() == ["0"]
        first.kill()
        waiting = hold(["0"])
        assert waiting.own() == ["0"] if free else waiting.waits.wait(30)
        os.kill(pid, signal.SIGKILL)
        assert free or waiting.own() == ["0"]
        waiting.kill()


JOB = """
import fcntl, random, sys, time
from selftrain import devices
sleep = time.sleep
devices.time.sleep = lambda seconds: sleep(0.002)
folder, number = devices.Path(sys.argv[1]), sys.argv[2]
draw = random.Random(int(number))
# Whoever holds a device claims it by a lock of another kind, which ends with a killed process as well; and before its
# lease, since the system closes files in the order of their opening.
claims = {str(one): open(folder / f"claim-{one}", "w") for one in range(4)}
for turn in range(4):
    count = draw.choice([1, 1, 1, 2, 3])
    with devices._leased([str(one) for one in range(4)], count, folder) as own:
        assert len(own) == count
        for one in own:
            fcntl.lockf(claims[one], fcntl.LOCK_EX | fcntl.LOCK_NB)
        sleep(draw.random() * 0.02)
        for one in own:
            fcntl.lockf(claims[one], fcntl.LOCK_UN)
print("done")
"""


@pytest.mark.parametrize("killed", [0, 4])
def test_many_jobs_of_one_to_three_devices_never_share_one_and_never_wait_for_ever(tmp_path, killed):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    jobs = [
        subprocess.Popen([sys.executable, "-c", JOB, tmp_path, str(number)], env=environment, stdout=-1, stderr=-1)
        for number in range(12)
    ]
    draw = random.Random(killed)
    for job in draw.sample(jobs, killed):
        time.sleep(draw.random() * 0.3)
        job.kill()
    ended = [job.communicate(timeout=300) for job in jobs]
    finished = [out for out, _ in ended if out.strip() == b"done"]
    assert len(finished) >= len(jobs) - killed, [error.decode() for _, error in ended]


@pytest.mark.parametrize(
    ("listed", "count", "ids"),
    [
        (None, 0, []),
        (None, 2, ["0", "1"]),
        ("", 0, []),
        ("-1", 0, []),
        ("2", 1, ["2"]),
        ("0, 3", 2, ["0", "3"]),
        ("0,-1,3", 1, ["0"]),
        ("GPU-ab,GPU-cd", 2, ["GPU-ab", "GPU-cd"]),
    ],
)
def test_the_ids_to_choose_from(listed, count, ids):
    assert _visible_ids(listed, count) == ids


@pytest.fixture
def gpus(monkeypatch, tmp_path):
    monkeypatch.setattr(devices.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)

    def have(count, listed=None):
        monkeypatch.setattr("torch.cuda.device_count", lambda: count)
        monkeypatch.delenv(VISIBLE, raising=False)
        if listed is not None:
            monkeypatch.setenv(VISIBLE, listed)

    return have


@pytest.mark.parametrize(
    ("there", "listed", "count", "kind"),
    [(0, None, 1, "cpu"), (0, None, 2, "cpu"), (1, None, 1, "cuda"), (1, "5", 1, "cuda"), (2, "5,7", 2, "cuda")],
)
def test_the_lease_steps_aside_where_there_is_no_choice(gpus, tmp_path, there, listed, count, kind):
    gpus(there, listed)
    with leased_device(count) as device:
        assert device.type == kind and os.environ.get(VISIBLE) == listed
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("there", "listed", "count"), [(4, "4,6,1,2", 1), (4, "4,6,1,2", 2), (2, None, 2)])
def test_the_lease_is_told_to_cuda(gpus, tmp_path, there, listed, count):
    gpus(there, listed)
    with leased_device(count) as device:
        own = os.environ[VISIBLE].split(",")
        assert device.type == "cuda" and len(set(own)) == count
        assert set(own) <= set((listed or "0,1").split(","))
        for one in own:
            with locks.held(devices._folder() / f"{one}.lock") as free:
                assert not free


def test_each_job_of_a_scheduler_counts_its_devices_anew(gpus, monkeypatch):
    gpus(2)
    alone = devices._folder()
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    assert devices._folder() != alone


def test_too_few_devices_are_told(gpus):
    gpus(1, "3")
    message = r"resources.gpu: 2 GPUs are asked for, 1 can be seen here \(CUDA_VISIBLE_DEVICES=3\)"
    with pytest.raises(UserError, match=message), leased_device(2):
        pass
