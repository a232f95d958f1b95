"""The report's groups of classes, sizes of objects, and alarms."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from test_report import ALARM, CLASSES, read, write_results

from selftrain.alarms.kinds import COLUMNS as ALARM_COLUMNS
from selftrain.report import page as page_module
from selftrain.report.alarms import Line, lines
from selftrain.report.page import SHOWN, write_report
from selftrain.report.results import read_results
from selftrain.report.summary import write_summary
from selftrain.report.tables import class_table, selection_table, threshold_table


@pytest.fixture
def undrawn(monkeypatch):
    """Pages without figures, which take most of a page's time and are looked at elsewhere."""
    monkeypatch.setattr(page_module, "drawings", lambda results, task: [])


def test_groups_have_a_mean_and_objects_a_figure(tmp_path):
    settings = write_results(tmp_path, seeds=(0, 1))
    write_summary(settings, tmp_path / "summary.csv")
    results = read_results(settings, tmp_path / "summary.csv")
    table = class_table(results, settings.tasks[0], "val")
    assert table.columns[-3:] == ["mean", "mean of rare_small", "pixel accuracy"]
    cells = [row[-2] for _, row in table.rows]
    assert [cell.text for cell in cells] == ["22.5 ± 3.5", "25.0 ± 3.5", "28.5 ± 3.5"]
    assert [cell.notes for cell in cells] == [(), ("+2.5 ± 0.0",), ("+6.0 ± 0.0",)]
    of = results.by_size(settings.tasks[0])
    assert list(of.model.unique()) == ["base, round 0", "st", "NA"], "experiments share round 0"
    small, large = (of[of.lower == lower] for lower in (4, 32))
    assert (small.pixels == 20).all() and (small.correct == 10).all(), "over both classes and seeds"
    assert large.correct.tolist() == [round(40 * x) + round(40 * (x + 0.1)) for x in (0.4, 0.45, 0.52)]


def test_a_page_says_which_classes_are_in_a_group(tmp_path, undrawn):
    settings = write_results(tmp_path)
    known = pd.DataFrame({"class": CLASSES, "share": 0.1, "images": 1, "image_share": 0.6, "mean_size": 0.2})
    known.to_csv(tmp_path / "classes.csv", index=False)
    task = settings.tasks[0].model_copy(update={"labeled": str(tmp_path / "classes.csv")})
    settings = settings.model_copy(update={"tasks": (task,)})
    write_summary(settings, tmp_path / "summary.csv")
    write_report(settings, tmp_path / "summary.csv", tmp_path / "index.html")
    text = " ".join(read((tmp_path / "index.html").read_text()).text)
    assert f"frequent_large: {', '.join(CLASSES)}" in text and "more than 50 %" in text


def test_alarms_of_seeds_are_one_line_and_the_worst_comes_first(tmp_path, undrawn):
    settings = write_results(tmp_path, seeds=(0, 1))
    exploded = {"alarm": "exploded", "class": "sky", "limit": 3.0}
    for seed, times in ((0, 4.0), (1, 5.0)):
        rows = [exploded | {"value": times, "message": f"sky, {times:g} times"}]
        if seed:
            rows.append(exploded | {"class": "NA", "value": 4.5, "message": "NA, 4.5 times"})
        pd.DataFrame(rows, columns=ALARM_COLUMNS).to_csv(tmp_path / f"st/seed-{seed}/round-2/alarms.csv", index=False)
        pd.DataFrame([], columns=ALARM_COLUMNS).to_csv(tmp_path / f"NA/seed-{seed}/round-1/alarms.csv", index=False)
    write_summary(settings, tmp_path / "summary.csv")
    results, task = read_results(settings, tmp_path / "summary.csv"), settings.tasks[0]
    assert lines(results, task) == [
        Line("exploded", "sky, 5 times", "st, round 2, seeds 0, 1"),
        Line("exploded", "NA, 4.5 times", "st, round 2, seed 1"),
        Line("never predicted", ALARM, "st, round 1, seeds 0, 1"),
    ]
    table = selection_table(results, task)
    marks = {names: cells[table.columns.index("alarms")] for names, cells in table.rows}
    told = {names: (cell.text, cell.notes, cell.tone) for names, cell in marks.items()}
    assert told == {
        ("st", "1"): ("1", ("1 never predicted",), "down"),
        ("st", "2"): ("2", ("2 exploded",), "down"),
        ("NA", "1"): ("0", (), ""),
    }
    tones = {names: [cell.tone for cell in cells] for names, cells in threshold_table(results, task).rows}
    assert tones["st", "2"] == ["down", "", "", "down"] and tones["NA", "1"] == [""] * 4
    write_report(settings, tmp_path / "summary.csv", tmp_path / "index.html")
    page = (tmp_path / "index.html").read_text()
    assert page.index("sky, 5 times") < page.index("NA, 4.5 times") and "sky, 4 times" not in page


def test_many_alarms_are_folded_and_none_are_said_to_be_none(tmp_path, undrawn):
    settings = write_results(tmp_path)
    for one in settings.rounds:
        if one.round:
            pd.DataFrame([], columns=ALARM_COLUMNS).to_csv(Path(one.folder, "alarms.csv"), index=False)
    write_summary(settings, tmp_path / "summary.csv")
    write_report(settings, tmp_path / "summary.csv", tmp_path / "none.html")
    reader = read((tmp_path / "none.html").read_text())
    assert "No alarms" in " ".join(reader.text) and ("class", "alarms") not in reader.attributes
    many = [{"alarm": "beyond", "class": f"c{i}", "value": i, "message": f"so many of c{i}"} for i in range(SHOWN + 3)]
    pd.DataFrame(many, columns=ALARM_COLUMNS).to_csv(tmp_path / "st/seed-0/round-1/alarms.csv", index=False)
    write_report(settings, tmp_path / "summary.csv", tmp_path / "many.html")
    page = (tmp_path / "many.html").read_text()
    read(page)
    assert page.index("so many of c10") < page.index("<summary>3 more") < page.index("so many of c2")
