"""Outputs are whole or not there, and what killed writers leave does not pile up."""

import errno
import fcntl
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import threading
import time

import pytest

from selftrain import artifacts, locks
from selftrain.train import finished

FORK = multiprocessing.get_context("fork")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def writer():
    """Starts processes that write half of a file and wait; kills those that are left."""
    started = []

    def start(path):
        ready = FORK.Event()

        def half():
            with artifacts.writing(path) as temporary:
                temporary.write_text("half of it, and longer than what comes after it")
                ready.set()
                time.sleep(60)

        process = FORK.Process(target=half)
        process.start()
        started.append(process)
        assert ready.wait(30)
        return process

    yield start
    for process in started:
        process.kill()
        process.join()


def end(process):
    process.kill()
    process.join()


def test_the_next_writer_takes_what_a_killed_one_left(tmp_path, writer):
    path = tmp_path / "cut.csv"
    for _ in range(2):
        end(writer(path))
    assert names(tmp_path) == [".cut.unfinished-0.csv", ".cut.unfinished-0.csv.lock"]
    artifacts.write_text(path, "whole")
    assert names(tmp_path) == ["cut.csv"] and path.read_text() == "whole"


def test_what_a_living_writer_writes_is_left_alone(tmp_path, writer):
    path = tmp_path / "cut.csv"
    dead, living, late = (writer(path) for _ in range(3))
    end(dead)
    end(late)
    artifacts.write_text(path, "whole")
    assert names(tmp_path) == [".cut.unfinished-1.csv", ".cut.unfinished-1.csv.lock", "cut.csv"]
    assert "half of it" in (tmp_path / ".cut.unfinished-1.csv").read_text()
    end(living)
    artifacts.write_text(path, "again")
    assert names(tmp_path) == ["cut.csv"] and path.read_text() == "again"


def test_other_outputs_of_a_like_name_are_left_alone(tmp_path, writer):
    for name in ("labels-0.h5", "labels.csv", "labels-0-of-2.h5"):
        end(writer(tmp_path / name))
    before = names(tmp_path)
    artifacts.write_text(tmp_path / "labels.h5", "whole")
    assert names(tmp_path) == sorted([*before, "labels.h5"]) and len(before) == 6


def test_many_writers_at_once_leave_one_whole_file(tmp_path):
    path = tmp_path / "file.txt"

    def write():
        for _ in range(50):
            artifacts.write_text(path, threading.current_thread().name * 1000)

    threads = [threading.Thread(target=write, name=str(number)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    text = path.read_text()
    assert names(tmp_path) == ["file.txt"] and len(text) == 1000 and len(set(text)) == 1


def test_a_block_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "file.txt"
    artifacts.write_text(path, "old")
    with pytest.raises(ZeroDivisionError), artifacts.writing(path) as temporary:
        temporary.write_text(str(1 / 0))
    assert names(tmp_path) == ["file.txt"] and path.read_text() == "old"


def test_permissions_are_those_of_any_new_file(tmp_path):
    old = os.umask(0o027)
    try:
        artifacts.write_text(tmp_path / "file.txt", "")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "file.txt").stat().st_mode) == 0o640


def test_where_there_are_no_locks_each_writer_has_a_name_of_its_own(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    path = tmp_path / "file.txt"
    with artifacts.writing(path) as one, artifacts.writing(path) as other:
        assert one != other and not one.exists() and not other.exists()
        one.write_text("one")
        other.write_text("other")
    assert names(tmp_path) == ["file.txt"] and path.read_text() == "one"


@pytest.mark.parametrize("locking", ["TRUE", "FALSE", "BEST_EFFORT"])
def test_hdf5_is_written_and_read_whoever_was_forked_meanwhile(tmp_path, locking):
    """HDF5 opens no file that a process has locked, and a forked one has the locks of its parent."""
    script = """
import multiprocessing, sys, time, h5py
from selftrain import artifacts, hdf5
with artifacts.writing(sys.argv[1]) as temporary:
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    child.start()
    with h5py.File(temporary, "w") as file:
        file.attrs["format"], file.attrs["version"] = "test", 1
hdf5.Format("test", 1, "").open(sys.argv[1]).close()
child.kill()
"""
    environment = os.environ | {"HDF5_USE_FILE_LOCKING": locking}
    subprocess.run([sys.executable, "-c", script, tmp_path / "file.h5"], env=environment, check=True, timeout=120)
    assert names(tmp_path) == ["file.h5"]


def test_a_lock_waits_tells_for_whom_and_is_removed(tmp_path, caplog):
    path, ready = tmp_path / "job.lock", FORK.Event()

    def hold():
        with locks.alone(path, "the job"):
            ready.set()
            time.sleep(60)

    holder = FORK.Process(target=hold)
    holder.start()
    assert ready.wait(30)
    killed = threading.Event()  # not is_alive(): a dying process gives its locks back before its parent can know

    def kill():
        while "waiting for its end" not in caplog.text:
            time.sleep(0.01)
        time.sleep(0.5)
        killed.set()
        holder.kill()

    threading.Thread(target=kill, daemon=True).start()
    with locks.alone(path, "the job"):
        assert killed.is_set()
    holder.join()
    assert f"the job: process {holder.pid} on " in caplog.text
    assert names(tmp_path) == []


def test_a_lock_whose_child_works_on_is_kept(tmp_path):
    path = tmp_path / "job.lock"
    with pytest.raises(ZeroDivisionError), locks.alone(path, "the job"):
        child = FORK.Process(target=time.sleep, args=(60,))
        child.start()
        _ = 1 / 0
    try:
        assert locks.try_lock(path) is None
    finally:
        end(child)
    with locks.held(path) as free:
        assert free


def test_two_jobs_with_one_log_run_one_after_the_other(tmp_path):
    """As when Snakemake was killed, and is started again while its job works on."""
    (tmp_path / "settings.json").write_text('{"domain": "real", "count": 150, "seed": 1, "size": [128, 256]}')
    command = [sys.executable, "-m", "selftrain", "stage", "--log", tmp_path / "draw.log", "draw"]
    command += ["--settings", tmp_path / "settings.json", "--output", tmp_path / "drawn"]
    orphan = subprocess.Popen(command)
    while not (tmp_path / ".drawn.unfinished").exists():
        time.sleep(0.05)
    orphan.send_signal(signal.SIGSTOP)
    (tmp_path / "draw.log").write_text("so far\n")
    (tmp_path / "settings.json").write_text('{"domain": "real", "count": 2, "seed": 2, "size": [32, 64]}')
    next_run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    told = next(line for line in next_run.stderr if "waiting for its end" in line)
    assert "so far" in (tmp_path / "draw.log").read_text()
    orphan.send_signal(signal.SIGCONT)
    next_run.communicate(timeout=300)
    assert orphan.wait() == 0 and next_run.returncode == 0
    assert f"the job: process {orphan.pid} on " in told
    assert len(list((tmp_path / "drawn/images").iterdir())) == 2
    assert names(tmp_path) == ["draw.log", "drawn", "settings.json"]


def test_what_is_kept_is_all_or_nothing_and_taken_as_new(tmp_path):
    for name in ("model", "table"):
        artifacts.write_text(tmp_path / "one" / name, name)
    files = {name: tmp_path / "one" / name for name in ("model", "table")}
    wanted = {name: tmp_path / "two" / name for name in files}
    kept = tmp_path / "kept/key"
    assert not finished.take(kept, wanted)
    finished.keep(kept, files)
    assert (kept / "model").samefile(files["model"])
    (kept / "table").rename(tmp_path / "table")
    assert not finished.take(kept, wanted) and not (tmp_path / "two").exists()
    finished.keep(kept, files)
    assert finished.take(kept, wanted)
    assert [wanted[name].read_text() for name in wanted] == ["model", "table"]
    assert names(tmp_path / "two") == ["model", "table"] and not wanted["model"].samefile(files["model"])
