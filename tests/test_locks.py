"""Locks on file systems that know none or are shared, of trainings, devices and HDF5."""

import errno
import fcntl
import logging
import os
import subprocess
import sys

import pytest
import tiny

from selftrain import devices, locks
from selftrain.errors import UserError
from selftrain.label.pseudo_labels import PseudoLabels
from selftrain.train.resume import resumable


@pytest.fixture(params=[errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS], ids=errno.errorcode.get)
def no_locks(request, monkeypatch):
    """As NFS without a lock service, and Lustre mounted without flock, have it."""

    def refuse(*_):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    return os.strerror(request.param)


def test_a_file_system_without_locks_is_named(no_locks, tmp_path):
    with pytest.raises(locks.NoLocksError) as caught:
        locks.try_lock(tmp_path / "folder/lock")
    assert str(caught.value) == f"{tmp_path}/folder: files cannot be locked there ({no_locks})"
    assert not locks.HELD


def test_a_training_goes_on_without_a_lock_and_warns(no_locks, tmp_path, caplog):
    with resumable(tmp_path, "key", 0) as resume:
        resume.save({"step": 3})
        assert resume.load() == {"step": 3}
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) == 1 and f"{tmp_path}/key: files cannot be locked there" in told[0]
    assert "start no second run in this folder" in told[0]
    assert not list(tmp_path.iterdir())


def test_what_fails_without_a_lock_fails_as_ever_and_leaves_nothing(no_locks, tmp_path):
    with pytest.raises(ZeroDivisionError) as raised, locks.alone(tmp_path / "lock", "this"):
        raise ZeroDivisionError
    assert raised.value.__context__ is None and not list(tmp_path.iterdir())


def test_gpus_are_not_leased_without_a_lock(no_locks, tmp_path):
    with (
        pytest.raises(UserError, match=rf"{tmp_path}: files cannot be locked .* set TMPDIR to a folder on a disk of"),
        devices._leased(["0", "1"], 1, tmp_path),
    ):
        pytest.fail("a GPU was leased")


def test_a_lock_removed_through_another_machine_is_made_anew(tmp_path, monkeypatch):
    stat, stale = type(tmp_path).stat, iter([OSError(errno.ESTALE, "Stale file handle")])

    def once_stale(path, **options):
        error = next(stale, None) if path.name == "lock" else None
        if error is not None:
            raise error
        return stat(path, **options)

    monkeypatch.setattr(type(tmp_path), "stat", once_stale)
    lock = locks.try_lock(tmp_path / "lock")
    assert lock is not None and next(stale, None) is None
    locks.unlock(lock)


def test_machines_that_share_a_folder_lease_their_own_devices_and_containers_of_one_the_same(tmp_path, monkeypatch):
    folders = []
    for boot in ("one", "other", "one"):
        (tmp_path / "boot_id").write_text(boot + "\n")
        monkeypatch.setattr(devices, "BOOT", tmp_path / "boot_id")
        folders.append(devices._folder())
    assert folders[0] == folders[2] != folders[1]
    monkeypatch.setattr(devices, "BOOT", tmp_path / "not there")
    monkeypatch.setattr(devices.platform, "node", lambda: "node-7")
    assert "node-7" in devices._folder().name


@pytest.fixture
def locked(tmp_path):
    """Pseudo-labels that another process, as far as HDF5 can tell, has locked."""
    path = tmp_path / "pseudo_labels.h5"
    tiny.write_pseudo_labels(path, ["a"], [tiny.blocks(tiny.SIZE)])
    with path.open("rb+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield path


def python(*arguments, **environment):
    known = {name: value for name, value in os.environ.items() if name != "HDF5_USE_FILE_LOCKING"}
    return subprocess.run([sys.executable, *arguments], env=known | environment, capture_output=True, text=True)


def test_commands_need_no_lock_of_hdf5(locked, tmp_path):
    command = ["-m", "selftrain", "export-labels", str(locked), "-o", str(tmp_path / "masks")]
    done = python(*command)
    assert done.returncode == 0, done.stderr
    refused = python(*command, HDF5_USE_FILE_LOCKING="TRUE")
    assert refused.returncode == 1 and "HDF5 cannot lock it" in refused.stderr


def test_as_a_library_hdf5_locks_as_its_user_has_it(locked):
    with pytest.raises(UserError, match=r"HDF5 cannot lock it .* set HDF5_USE_FILE_LOCKING=FALSE"):
        PseudoLabels(locked)
    done = python("-c", "import os, selftrain; selftrain.PseudoLabels; print(dict(os.environ))")
    assert "HDF5_USE_FILE_LOCKING" not in done.stdout, done.stderr
