"""The study's harness: rows are measured once, on whatever machine, and the page says what the file says."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from project import Project

from selftrain.errors import UserError
from selftrain.settings.base import deep_merge

ROOT = Path(__file__).parents[1]
CONFIGS = ("headline", "hybrid", "ablation", "longer")
STREETS = {"domain": "synthetic", "count": 4, "size": [32, 64]}
CONFIG = {
    "results": "results",
    "tasks": {
        "drawn": {
            "classes": "camvid",
            "labeled": {"streets": STREETS},
            "unlabeled": {"streets": STREETS | {"domain": "real", "seed": 1}},
            "truth": True,
            "evaluation": {
                "val": {"streets": STREETS | {"domain": "real", "count": 2, "seed": 2}},
                "test": {"streets": STREETS | {"domain": "real", "count": 2, "seed": 3}},
            },
        }
    },
    "model": {"module": "tiny:network"},
    "train": {"steps": 3, "batch_size": 4, "augmentation": {"crop": [32, 64]}},
    "pretrain": {"start": None, "oracle": {"labels": "truth", "train": {"steps": 6}}},
    "experiments": {
        "cbst": {"policy": "cbst", "rounds": [{"portion": 0.2}, {"portion": 0.5}]},
        "normalized": {"policy": {"name": "cbst", "choice": "normalized"}, "rounds": [{"portion": 0.5}]},
        "mixing": {"algorithm": {"name": "mean_teacher_mixing", "across": "source_to_target"}, "start": "pretrained"},
    },
}


@pytest.fixture
def study(tmp_path, monkeypatch):
    """The study's modules, called on a config of tiny drawings in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks/study"))
    import rows

    return Study(rows, tmp_path)


class Study:
    def __init__(self, rows, folder):
        self.rows, self.csv, self.config = rows, folder / "study.csv", folder / "config.yaml"

    def planned(self, **over):
        self.config.write_text(yaml.safe_dump(deep_merge(CONFIG, over), sort_keys=False))
        return self.rows.planned([self.config])

    def run(self, *names, rows=None):
        """Measure the rows of these names; returns how many failed."""
        import runpy

        main = runpy.run_path(str(ROOT / "benchmarks/study/__main__.py"))
        chosen = [row for row in rows or self.planned() if not names or row.experiment in names]
        return main["run"](self.rows.missing(chosen, self.rows.read(self.csv)), self.csv)

    def read(self):
        return self.rows.read(self.csv)


def test_every_kind_of_row_is_measured_and_none_twice(study):
    assert study.run() == 0
    first, text = study.read(), study.csv.read_text()
    assert list(first.experiment) == ["start", "oracle", "cbst", "normalized", "mixing"]
    assert list(first.steps) == [3, 6, 9, 6, 6]
    assert first.test_miou.between(0, 1).all() and (first.cpu_minutes >= 0).all()
    assert list(first.pseudo_labels_right.notna()) == [False, False, True, True, False]
    assert all(len(one.split()) == 11 for one in first.test_iou)
    assert study.run() == 0
    assert study.csv.read_text() == text
    row = first.iloc[0].to_dict()
    study.rows.append(study.csv, row)
    assert study.csv.read_text() == text


def test_rows_are_what_snakemake_would_make(study):
    """Paths are the graph's, and every file that evaluation leaves is there."""
    study.run("cbst")
    folder = Path("results/drawn/cbst/seed-0")
    assert {path.name for path in (folder / "round-2").iterdir()} == {
        *("cut.csv", "pseudo_labels.h5", "pseudo_labels.csv", "pseudo_label_scores.csv"),
        *("model.safetensors", "train.csv", "manifest.json", "confusion.csv", "metrics.csv", "sizes.csv"),
    }
    assert Path("results/drawn/pretrained/start/seed-0/predictions/single/shard-0-of-1.h5").is_file()
    scores = pd.read_csv(folder / "round-2/metrics.csv").set_index(["split", "metric"]).value
    assert study.read().test_miou[0] == pytest.approx(scores["test", "miou"], abs=1e-5)


@pytest.mark.slow
def test_snakemake_makes_the_same(study, tmp_path):
    """Offline, with every stage, and online, so that the study does not come to differ from the rules."""
    over = {"model": {"module": None, "encoder": "mobilenetv3_small_050"}, "only": ["normalized", "mixing"]}
    assert study.run(rows=study.planned(**over)) == 0
    project = Project(tmp_path / "project", deep_merge(CONFIG, over))
    done = project.snakemake("--", "results/summary.csv")
    assert done.returncode == 0, done.stderr
    ours = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.glob("results/drawn/**/*.safetensors")}
    assert len(ours) == 3
    for path, content in ours.items():
        assert (project.folder / path).read_bytes() == content, path
    summary = pd.read_csv(project.folder / "results/summary.csv")
    summary = summary[summary.split == "test"].groupby("experiment").miou.last()
    for row in study.read().itertuples():
        if row.experiment != "start":
            assert summary[row.experiment] == pytest.approx(row.test_miou, abs=1e-5)


def test_what_is_shared_is_made_once_and_what_changes_is_made_again(study):
    study.run("start")
    model = Path("results/drawn/pretrained/start/seed-0/model.safetensors")
    made = model.stat().st_mtime_ns
    study.run("cbst", "mixing")
    assert model.stat().st_mtime_ns == made
    study.run(rows=study.planned(train={"optimizer": {"lr": 0.1}})[:1])
    assert model.stat().st_mtime_ns > made
    assert len(study.read()) == 4


def test_a_failed_row_is_told_and_tried_again_and_the_others_run(study, monkeypatch, caplog):
    import chain

    predict, broken = chain.predict_shard, {"now": True}

    def fail(*arguments, **files):
        if broken["now"]:
            raise UserError("no space left")
        predict(*arguments, **files)

    monkeypatch.setattr(chain, "predict_shard", fail)
    assert study.run() == 2
    assert set(study.read().experiment) == {"start", "oracle", "mixing"}
    assert "drawn cbst seed 0: failed: no space left" in caplog.text
    broken["now"] = False
    assert study.run() == 0
    assert len(study.read()) == 5


def test_a_killed_row_goes_on_after_its_last_whole_file(study, monkeypatch):
    import chain

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(chain, "merge", killed)
        study.run("cbst")
    start = Path("results/drawn/pretrained/start/seed-0/model.safetensors")
    made = start.stat().st_mtime_ns
    assert not study.csv.exists()
    assert study.run("cbst") == 0
    assert start.stat().st_mtime_ns == made
    assert list(study.read().experiment) == ["cbst"]


@pytest.mark.parametrize(
    "over",
    [
        {"train": {"optimizer": {"lr": 0.1}}},
        {"pretrain": {"start": {"train": {"steps": 5}}}},
        {"experiments": {"cbst": {"policy": "dars"}}},
        {"experiments": {"cbst": {"rounds": [{"portion": 0.2}, {"portion": 0.6}]}}},
        {"tasks": {"drawn": {"unlabeled": {"size": [16, 32]}}}},
        {"evaluation": {"flip": True}},
        {"seeds": [1]},
    ],
)
def test_the_digest_changes_with_what_determines_the_result(study, over):
    before, after = ({row.experiment: row.digest for row in study.planned(**one)}["cbst"] for one in ({}, over))
    assert before != after


ANOTHER = {"another": {"policy": "st", "rounds": [{"portion": 0.1}]}}


@pytest.mark.parametrize(
    "over",
    [
        {"data_root": "elsewhere", "results": "others", "machine": {"threads": 3}, "shards": 2},
        {"experiments": ANOTHER, "seeds": [0, 1]},
    ],
)
def test_the_digest_does_not_change_with_the_machine_or_other_rows(study, over):
    before, after = ({row.name: row.digest for row in study.planned(**one)} for one in ({}, over))
    assert before.items() <= after.items()


def test_the_digest_has_the_name_of_weights_and_not_their_folder(study):
    def digest(weights):
        over = {"model": {"module": None, "encoder": "mobilenetv2_100", "weights": weights}}
        return study.planned(**over)[0].digest

    assert digest("here/a.safetensors") == digest("there/a.safetensors") != digest("here/b.safetensors")


def test_data_that_are_not_there_are_told_before_any_row(study):
    files = {"labeled": {"streets": None, "list": "labeled.txt"}}
    rows = study.planned(tasks={"drawn": {"root": "photos"} | files})
    with pytest.raises(UserError, match=r"tasks\.drawn\.labeled: photos/labeled\.txt: no such"):
        study.run(rows=rows)
    assert not study.csv.exists() and not Path("results/.jobs").exists()


def test_a_config_over_all_others_says_where_data_are(study):
    study.planned()
    over = study.config.with_name("over.yaml")
    over.write_text("data_root: elsewhere\n")
    there = study.rows.planned([study.config], [over])
    assert {row.graph.config.data_root for row in there} == {"elsewhere"}
    assert [row.digest for row in there] == [row.digest for row in study.planned()]


def test_a_file_with_other_columns_is_refused_and_left_as_it_is(study):
    study.csv.write_text("digest,miou\n0f,0.5\n")
    with pytest.raises(UserError, match=r"study\.csv: its header is digest,miou, not digest,task,.*--csv"):
        study.run()
    assert study.csv.read_text() == "digest,miou\n0f,0.5\n"


def test_a_digest_twice_is_refused(study):
    line = ",".join(["0f"] + ["1"] * (len(study.rows.COLUMNS) - 1))
    study.csv.write_text("\n".join([",".join(study.rows.COLUMNS), line, line]) + "\n")
    with pytest.raises(UserError, match="the digest 0f is there twice"):
        study.read()


# The study itself, in configs/benchmark and docs.


@pytest.fixture
def plan(study, monkeypatch):
    monkeypatch.chdir(ROOT)
    return study.rows.planned([ROOT / f"configs/benchmark/{name}.yaml" for name in CONFIGS])


def test_every_row_of_a_task_has_as_many_steps_and_the_same_encoder(plan):
    starts = {"start", "two-branches"}
    assert {row.steps for row in plan if row.experiment in starts} == {500}
    others = [row for row in plan if row.experiment not in starts]
    assert {row.steps for row in others if not row.experiment.endswith("-longer")} == {900}
    assert {row.steps for row in others if row.experiment.endswith("-longer")} == {500 + 4 * 400}
    models = [row.graph.pretraining(row.model).model for row in plan]
    assert len({(one.encoder, one.weights, one.output_stride) for one in models}) == 1


def test_headline_rows_come_first_and_one_seed_before_the_next(plan):
    headline = [row.model.seed for row in plan if row.experiment in ("start", "cbst", "curriculum")]
    assert headline == sorted(headline)
    first = next(number for number, row in enumerate(plan) if row.experiment in ("anchors", "st"))
    assert {row.model.seed for row in plan[:first]} == {0, 1, 2}
    assert "curriculum" not in {row.experiment for row in plan[first:]}


def test_claims_are_about_rows_of_the_study(plan):
    from claims import CLAIMS

    names = {(row.model.task, row.experiment) for row in plan}
    for claim in CLAIMS:
        both = [{task for task, name in names if name == one} for one in (claim.better, claim.worse)]
        assert both[0] & both[1], claim
    compared = {name for claim in CLAIMS for name in (claim.better, claim.worse)}
    assert {name for _, name in names} - compared == {"start", "oracle"}


def test_every_column_is_explained(study):
    explained = re.findall(r"`(\w+)`", (ROOT / "docs/data/README.md").read_text())
    assert set(study.rows.COLUMNS) <= set(explained)


def test_what_a_claim_is_worth(study):
    from claims import verdict

    assert verdict(np.array([])) == "not yet run"
    assert verdict(np.array([3.0])) == "one pair"
    assert verdict(np.array([2.0, 2.5, 3.0])) == "holds"
    assert verdict(np.array([-2.0, -2.5, -3.0])) == "does not hold"
    assert verdict(np.array([2.0, -1.0, 0.5])) == "within noise"


def test_the_page_has_the_tables_of_the_committed_rows(plan, study):
    import tables

    page = (ROOT / "docs/results.md").read_text()
    measured = study.rows.read(ROOT / "docs/data/study.csv")
    assert tables.put_into(page, tables.text(plan, measured)) == page


def test_every_committed_row_is_of_the_plan_and_of_equal_steps(plan, study):
    planned = {row.digest: row for row in plan}
    for row in study.rows.read(ROOT / "docs/data/study.csv").itertuples():
        assert row.digest in planned, f"{row.task} {row.experiment}: other settings than configs/benchmark has now"
        assert row.steps == planned[row.digest].steps


def test_tables_tell_gain_and_gap_by_seed(study):
    import tables

    rows = [row for row in study.planned(seeds=[0, 1]) if row.experiment != "mixing" or row.model.seed == 0]
    scores = {"start": (0.2, 0.3), "oracle": (0.6, 0.7), "cbst": (0.3, 0.5), "mixing": (0.3, 0.5)}
    steps = {"start": 3, "oracle": 9, "cbst": 9, "mixing": 21}
    told = [row for row in rows if row.experiment in scores]
    for row in told:
        measured = dict.fromkeys(study.rows.COLUMNS, "") | {"digest": row.digest, "seed": row.model.seed}
        score = scores[row.experiment][row.model.seed]
        measured |= {"test_miou": score, "val_miou": score, "test_pixel_accuracy": 0.5, "cpu_minutes": 2}
        measured |= {"steps": steps[row.experiment]}
        study.rows.append(study.csv, measured | {"gpu_minutes": 0})
    text = tables.text(rows, study.read())
    assert "7 of 9 rows are measured, in 14 CPU-minutes and 0 GPU-minutes." in text
    first = (
        "| test mIoU | drawn |",
        "|---|---|",
        "| start | 25.0 ± 7.1 |",
        "| cbst | 40.0 ± 14.1 |",
        "| oracle | 65.0 ± 7.1 |",
    )
    assert "\n".join(first) in text
    # The last has more steps than the oracle, so its gain is no share of the gap.
    for line in (
        "| cbst | 2 | 40.0 ± 14.1 | 40.0 ± 14.1 | +15.0 ± 7.1 | 38 ± 18 % | 50.0 ± 0.0 |  |  | 2.0 |",
        "| mixing | 1 | 30.0 | 30.0 | +10.0 |  | 50.0 |  |  | 2.0 |",
    ):
        assert line in text.splitlines()


def test_claims_are_told_by_task_and_of_all_tasks_together(study):
    import tables
    from claims import Claim

    scores = {"one": ([0.30, 0.34], [0.29, 0.31]), "two": ([0.52], [0.50])}  # better and worse, by seed
    rows = [
        {"task": task, "experiment": name, "seed": seed, "val_miou": score, "test_miou": 0.1}
        for task, both in scores.items()
        for name, of_name in zip(("better", "worse"), both, strict=True)
        for seed, score in enumerate(of_name)
    ]
    rows.append({"task": "alone", "experiment": "better", "seed": 0, "val_miou": 0.9, "test_miou": 0.9})
    lines = list(tables._claim_lines(Claim("better", "worse", "ours", column="val_miou"), pd.DataFrame(rows)))
    assert [line.split(" | ", 3)[3] for line in lines] == [
        "one | 2 | +2.0 ± 1.4 | within noise |",
        "two | 1 | +2.0 | one pair |",
        "all | 3 | +2.0 ± 1.0 | holds |",
    ]
    assert all(line.startswith("| better > worse: val | ours |  | ") for line in lines)
