"""How far a stage is: lines in a log, a bar at a terminal, and what a person sees of jobs whose output goes to logs."""

import io
import json
import logging
import os
import pty
import subprocess
import sys

import pytest
import tiny

from selftrain import progress
from selftrain.progress import followed, following
from selftrain.settings.data import ReadSettings


@pytest.fixture
def clock(monkeypatch):
    """Seconds, moved by hand."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def lines(caplog, monkeypatch):
    """What a log gets, as it gets it."""
    told = []
    caplog.set_level(logging.INFO, "selftrain.progress")
    monkeypatch.setattr(caplog.handler, "emit", lambda record: told.append(record.getMessage()))
    return told


def test_a_log_gets_a_line_every_so_often_and_one_at_the_end(clock, lines):
    for _ in followed(range(100), "predict", 100):
        clock[0] += 2
    # 15 items in 30 s: half an item a second, 85 left
    assert lines[0] == "predict: 15 of 100 images (15%), 0.5 images/s, 0:02:50 left"
    assert len(lines) == 7 and lines[-1] == "predict: 100 of 100 images (100%), 0.5 images/s, took 0:03:20"


def test_what_was_done_before_counts_for_the_share_and_not_for_the_rate(clock, lines):
    with following("train", 100, unit="step", done=60) as told:
        clock[0] += 40
        told.tell("loss 0.5")
        told.advance(20)
        clock[0] += 1
        told.advance(20)
    assert lines == [
        "train: 80 of 100 steps (80%), loss 0.5, 0:00:40 left",
        "train: 100 of 100 steps (100%), loss 0.5, took 0:00:41",
    ]


def test_an_item_can_count_for_several(clock, lines):
    batches = [[1, 2, 3], [4, 5]]
    for _ in followed(batches, "predict", 5, size=len):
        clock[0] += 31
    assert [line.split(" images")[0] for line in lines] == ["predict: 3 of 5", "predict: 5 of 5"]


@pytest.mark.parametrize(("wait", "told"), [(3, ", 75% of it waiting: read sooner"), (0.2, "")])
def test_long_waiting_for_items_is_told_where_something_helps(clock, lines, wait, told):
    def slow():
        for item in range(10):
            clock[0] += wait
            yield item

    for remedy in ("read sooner", None):
        for _ in followed(slow(), "predict", 10, remedy=remedy):
            clock[0] += 1
    took = f"took 0:00:{10 + 10 * wait:.0f}"
    assert [line.split("images/s, ")[1] for line in lines if "took" in line] == [took + told, took]


def test_nothing_at_all(clock, lines):
    assert list(followed([], "label", 0)) == []
    assert lines == ["label: 0 of 0 images (0%), 0 images/s, took 0:00:00"]


def test_what_fails_is_not_said_to_be_done(clock, lines):
    with pytest.raises(KeyError):
        for _ in followed(range(3), "check", 3):
            raise KeyError
    with pytest.raises(KeyError), following("train", 3):
        raise KeyError
    assert lines == []


def test_the_silent_say_nothing(clock, lines, capsys):
    with following("train", 3, silent=True) as told:
        clock[0] += 100
        told.tell("loss 1")
        told.advance()
    assert lines == [] and capsys.readouterr() == ("", "")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_a_bar_with_the_latest_facts(lines, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with following("train", 4, unit="step", done=1) as told:
        told.tell("labeled 0.25, images_per_second 12")
        told.advance(3)
    shown = sys.stderr.getvalue()
    assert "train" in shown and "4/4" in shown and "labeled 0.25, images_per_second 12" in shown and "100%" in shown
    assert lines == []


IMPATIENT = "import selftrain.progress as told; told.EVERY = 0; from selftrain.cli import main; main()"


def job(tmp_path, stderr):
    """Statistics of a split as a job of the graph, which says how far it is after each image."""
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps(ReadSettings(classes=tiny.CLASSES, ignore_index=255).model_dump(mode="json")))
    log = tmp_path / "results/logs/tiny/dars/seed-0/round-2/statistics.log"
    command = ["stage", "--log", str(log), "statistics", "--settings", str(settings)]
    command += ["--images", str(tiny.split(tmp_path / "data")), "--classes", str(tmp_path / "classes.csv")]
    command += ["--statistics", str(tmp_path / "statistics.h5")]
    subprocess.run([sys.executable, "-c", IMPATIENT, *command], stderr=stderr, check=True)
    return log.read_text()


def test_at_a_terminal_a_job_says_which_it_is_and_how_far_and_its_log_has_it_too(tmp_path):
    ours, theirs = pty.openpty()
    log = job(tmp_path, theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 10_000)
        except OSError:  # all was read, and nobody writes
            break
    os.close(ours)
    told = shown.decode().splitlines()
    assert told and all(line.startswith("dars/seed-0/round-2/statistics: statistics: ") for line in told)
    assert " left" in told[0] and "took" not in shown.decode()
    assert told[0].removeprefix("dars/seed-0/round-2/statistics: ") in log and "took" in log


def test_where_nobody_looks_only_the_log_is_told(tmp_path):
    with (tmp_path / "stderr").open("w") as stderr:
        assert " left" in job(tmp_path, stderr)
    assert (tmp_path / "stderr").read_text() == ""
