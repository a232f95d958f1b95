"""What fails beside a job or below it: it reports or repeats, and nothing uses what is not whole."""

import os
import signal
import time
from pathlib import Path

import pytest
import tiny
import torch
from finished_run import BASE, MODEL, PREDICTION, ROUND, job_of, snakemake
from walking import call

from selftrain import artifacts
from selftrain.errors import UserError
from selftrain.settings.config import MachineSettings
from selftrain.train import stage
from selftrain.train.stage import train


@pytest.fixture
def data(tmp_path):
    return {"labeled": tiny.split(tmp_path / "labeled")}


def test_a_process_that_reads_images_is_killed(tmp_path, data, monkeypatch):
    """As the system does where memory is short."""
    started = stage._loader

    def loader(*arguments):
        made = started(*arguments)
        iterator = iter(made)
        os.kill(iterator._workers[0].pid, signal.SIGKILL)
        return iterator

    monkeypatch.setattr(stage, "_loader", loader)
    paths = tiny.outputs(tmp_path / "out", **data)
    with pytest.raises(UserError, match=r"a process that reads images was ended \(.*\); out of memory\?"):
        train(tiny.stage(), paths, MachineSettings(workers=2))
    assert not any(path.exists() for path in paths.outputs().values())


def ruining(monkeypatch, step):
    """Lets the weights be infinite after a step."""
    advance = stage._Run.advance

    def ruined(self, batches):
        terms = advance(self, batches)
        if self.step == step:
            self.segmenter.encoder.network[0].weight.data.fill_(torch.inf)
        return terms

    monkeypatch.setattr(stage._Run, "advance", ruined)
    return lambda: monkeypatch.setattr(stage._Run, "advance", advance)


@pytest.mark.parametrize("step", [14, 20])
def test_what_was_saved_before_a_loss_that_is_no_number_is_kept_and_gone_on_from(tmp_path, data, monkeypatch, step):
    """At the 20th step a checkpoint is due, of weights that are ruined though no loss has said so."""
    whole = tiny.outputs(tmp_path / "whole", **data)
    train(tiny.stage(), whole, tiny.NOW)
    paths = tiny.outputs(tmp_path / "out", **data)
    restore = ruining(monkeypatch, step)
    told = r"step 15: the loss 'labeled' is nan; images: labeled-" if step == 14 else "step 20: NaN or infinite weights"
    with pytest.raises(UserError, match=told):
        train(tiny.stage(), paths, tiny.NOW)
    (state,) = paths.resume.rglob("state.pt")
    saved = torch.load(state, weights_only=True)
    assert saved["step"] == 10 and all(torch.isfinite(tensor).all() for tensor in saved["model"].values())
    assert not any(path.exists() for path in paths.outputs().values())
    restore()
    train(tiny.stage(), paths, tiny.NOW)
    assert paths.model.read_bytes() == whole.model.read_bytes()


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path, data, monkeypatch):
    paths, save, count = tiny.outputs(tmp_path / "out", **data), torch.save, iter(range(9))

    def full(state, file):
        save(state, file)
        if next(count):
            raise OSError(28, os.strerror(28))

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match=r"state\.pt: cannot be written \(No space left on device; free some space"):
        train(tiny.stage(), paths, tiny.NOW)
    (state,) = paths.resume.rglob("state.pt")
    assert torch.load(state, weights_only=True)["step"] == 10


def jobs_planned(*arguments):
    code, said = snakemake("--cores", "1", "--dry-run", "--quiet", "rules", *arguments)
    assert code == 0, said
    counts = [line.split() for line in said.splitlines()]
    return {line[0] for line in counts if len(line) == 2 and line[1].isdigit()} - {"all", "total"}, said


def test_a_shard_that_is_deleted_is_made_again(ran, results, refused):
    """The job that needs it says so; Snakemake makes it, and what follows from it, anew."""
    job = job_of(ran, f"{ROUND}/cut.csv")
    Path(PREDICTION).unlink()
    refused(*job.arguments, told=(PREDICTION, "no such file; run predict again"))
    planned, _ = jobs_planned("--rerun-triggers", "mtime", "--", f"{ROUND}/cut.csv")
    assert planned == {"predict", "select"}


def test_a_clock_that_goes_back(ran, results):
    """What was made before it went back is not taken for newer than a model that is trained after."""
    later = time.time() + 3600
    files = sorted(
        (path for path in Path("results").rglob("*") if path.is_file()), key=lambda path: path.stat().st_mtime
    )
    for place, path in enumerate(files):
        os.utime(path, (later + place, later + place))
    target = ["--rerun-triggers", "mtime", "--", f"{ROUND}/cut.csv"]
    planned, said = jobs_planned(*target)
    assert not planned and f"the clock was set back; {len(files)} results" in said
    assert sorted(files, key=lambda path: path.stat().st_mtime_ns) == files
    assert max(path.stat().st_mtime for path in files) <= time.time()
    os.utime(MODEL)
    planned, said = jobs_planned(*target)
    assert planned == {"predict", "select"} and "the clock" not in said


def test_times_that_are_past_stay(tmp_path):
    (tmp_path / "a").touch()
    before = (tmp_path / "a").stat().st_mtime_ns
    assert artifacts.bring_back(tmp_path) == 0 and (tmp_path / "a").stat().st_mtime_ns == before
    assert artifacts.bring_back(tmp_path / "none") == 0


def test_a_job_that_failed_half_way_succeeds_where_the_cause_is_gone(ran, results, refused, monkeypatch):
    job = job_of(ran, f"{BASE}/predictions/single/shard-1-of-2.h5")
    with monkeypatch.context() as failing:
        failing.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(5, os.strerror(5))))
        refused(*job.arguments, told=("cannot be written (Input/output error",))
    assert call(*job.arguments) == 0
    assert Path(job.outputs[0]).read_bytes() == (ran[0] / job.outputs[0]).read_bytes()
