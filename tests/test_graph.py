"""The whole graph on tiny data, and what a second run does after each kind of change."""

import json
import re
import zipfile
from collections.abc import Iterator

import pandas as pd
import pytest
import yaml
from documented_files import documented, found
from forked_jobs import forked_jobs
from project import Project, tiny_config
from safetensors.torch import load_file
from walking import call, planned

from selftrain import artifacts
from selftrain.data.review import CHECKED
from selftrain.graph import Graph
from selftrain.inspection.artifact import inspect
from selftrain.label.pseudo_labels import PseudoLabels
from selftrain.models import files
from selftrain.plan.jobs import Job
from selftrain.plan.work import Workload
from selftrain.predict.store import Predictions
from selftrain.preview.file import Preview
from selftrain.report.gallery import NOT_LOSSES

TOLD = ("preview task=tiny", "summary", "report")
"""Jobs that tell of all models."""
DARS_2, MLSL_2 = (f"results/tiny/{name}/seed-0/round-2" for name in ("dars", "mlsl"))
OFFLINE = {"cbst": 1, "dars": 2, "mlsl": 2, "hybrid": 2, "st": 1}
MIXING = ("aligned", "classmix")
ONLINE = (*MIXING, "curriculum")
ROUNDS = OFFLINE | dict.fromkeys(ONLINE, 1) | {"oracle": 0}
PREDICTIONS = [
    "pretrained/start/seed-0/predictions/single",
    "pretrained/start/seed-0/predictions/prior-0.02-temperature",
    "pretrained/branched/seed-0/predictions/agreeing-1",
    "dars/seed-0/round-1/predictions/single",
    "hybrid/seed-0/round-1/predictions/single",
    "mlsl/seed-0/round-1/predictions/sisc-9x16x32",
]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Where all has run; its jobs were forks, while tests that run a few more may have processes as a user has them."""
    project = Project(tmp_path_factory.mktemp("graph"), tiny_config())
    with forked_jobs(project.folder) as project.python:
        code, told = project.forked()
        assert code == 0, told
        yield project


@pytest.fixture
def project(ran: Project):
    """The project after a run; config and code are as they were when the test ends."""
    yield ran
    ran.configure(tiny_config())
    ran.copy("src")


def test_every_artifact_is_there(ran):
    for name in (
        f"{DARS_2}/cut.csv",
        *(f"results/tiny/dars/seed-0/round-{number}/alarms.csv" for number in (1, 2)),
        f"{DARS_2}/pseudo_labels.h5",
        f"{DARS_2}/pseudo_labels.csv",
        f"{DARS_2}/model.safetensors",
        f"{DARS_2}/train.csv",
        f"{DARS_2}/metrics.csv",
        f"{DARS_2}/confusion.csv",
        f"{DARS_2}/sizes.csv",
        f"{DARS_2}/manifest.json",
        f"{MLSL_2}/pseudo_label_scores.csv",
        "results/tiny/cbst/seed-0/round-1/metrics.csv",
        *(f"results/tiny/{name}/seed-0/round-1/{file}" for name in ONLINE for file in ("metrics.csv", "examples.h5")),
        *(f"results/tiny/{model}/shard-0-of-1.h5" for model in PREDICTIONS),
        "results/report/index.html",
    ):
        assert (ran.folder / name).is_file(), name
    predicted = [path.parent for path in (ran.folder / "results/tiny").rglob("predictions/*/*.h5")]
    assert sorted(str(path.relative_to(ran.folder / "results/tiny")) for path in predicted) == sorted(PREDICTIONS)
    assert not list((ran.folder / "results").rglob("chosen-*.h5")), "an intermediate file was left"
    for left in ("*.unfinished*", ".*.lock", ".finished", ".resume/*"):
        assert not list((ran.folder / "results").rglob(left)), "what interrupted jobs need was left"


def test_every_artifact_can_be_inspected(ran):
    files = [
        path
        for kind in ("*.csv", "*.h5", "*.safetensors", "manifest.json", "calibrator.json")
        for path in (ran.folder / "results").rglob(kind)
    ]
    assert len({path.name for path in files}) > 15
    for path in files:
        assert len(inspect(path).columns) > 1, path


def test_every_file_is_documented_as_it_is(ran):
    in_files, told = found(ran.folder / "results"), documented()
    assert told.pop("review.csv") == {"column": set(CHECKED)}  # nobody has reviewed these
    assert in_files == told


def test_the_page_draws_as_losses_what_is_a_term_of_the_loss_alone(ran):
    losses = {"labeled", "pseudo_labeled", "mixed", "pasted", "unlabeled", "labeled_classes", "pseudo_labeled_classes"}
    for file in ran.folder.glob("results/tiny/**/train.csv"):
        assert set(pd.read_csv(file)) - set(NOT_LOSSES) <= losses, file


def test_weak_labels_and_their_head_are_in_the_files_of_their_rounds_alone(ran):
    for number in (1, 2):
        folder = ran.folder / MLSL_2.replace("round-2", f"round-{number}")
        labels = PseudoLabels(folder / "pseudo_labels.h5")
        assert labels.weak_labels.shape == (7, 11) and labels.weak_labels.any()
        assert pd.read_csv(folder / "pseudo_labels.csv").weak_images.tolist() == labels.weak_labels.sum(0).tolist()
        assert pd.read_csv(folder / "pseudo_label_scores.csv").weak_recall[0] > 0
        assert {"labeled_classes", "pseudo_labeled_classes"} < set(pd.read_csv(folder / "train.csv"))
        told = json.loads((folder / "manifest.json").read_text())["network"]
        heads = {name: tensor for name, tensor in load_file(folder / "model.safetensors").items() if "heads." in name}
        assert heads and all(name.startswith("heads.") for name in heads)
        assert told["head_parameters"] == sum(tensor.numel() for tensor in heads.values())
        network, _ = files.load(folder / "model.safetensors")
        assert not network.heads and told["parameters"] == sum(p.numel() for p in network.parameters())
    for other in ("dars", "cbst", "st"):
        folder = ran.folder / f"results/tiny/{other}/seed-0/round-1"
        assert PseudoLabels(folder / "pseudo_labels.h5").weak_labels is None
        assert not [name for name in load_file(folder / "model.safetensors") if name.startswith("heads.")]
        assert pd.read_csv(folder / "pseudo_label_scores.csv")[["weak_precision", "weak_recall"]].isna().all(axis=None)


def test_the_summary_has_every_round_and_split(ran):
    summary = pd.read_csv(ran.folder / "results/summary.csv")
    columns = "task experiment seed round split miou pixel_accuracy gain labeled_share pseudo_label_accuracy"
    assert list(summary.columns) == columns.split()
    told = sorted(zip(summary.experiment, summary["round"], summary.split, strict=True))
    assert told == [(e, r, "val") for e, n in sorted(ROUNDS.items()) for r in range(n + 1)]
    online = summary[summary.experiment.isin(ONLINE)]
    assert online[["labeled_share", "pseudo_label_accuracy"]].isna().all(axis=None)
    later = summary[(summary["round"] > 0) & ~summary.experiment.isin(ONLINE)]
    assert later.labeled_share.between(0, 1, inclusive="right").all()
    assert later.pseudo_label_accuracy.between(0, 1).all()
    assert (summary[summary["round"] == 0].gain == 0).all()


def test_online_trainings_stand_beside_the_rounds(ran):
    """From the same data: one from where round 0 began, the other from the model of round 0."""
    inputs = {}
    for name in MIXING:
        folder = ran.folder / f"results/tiny/{name}/seed-0/round-1"
        assert not (folder / "pseudo_labels.h5").exists() and not (folder / "cut.csv").exists()
        inputs[name] = json.loads((folder / "manifest.json").read_text())["inputs"]
        assert {"labeled", "mixed", "share_above_threshold"} < set(pd.read_csv(folder / "train.csv"))
    assert set(inputs["classmix"]) == {"labeled", "unlabeled"}
    assert set(inputs["aligned"]) == {"labeled", "unlabeled", "start", "distribution"}
    start = ran.folder / "results/tiny/pretrained/start/seed-0/model.safetensors"
    truth = ran.folder / "results/tiny/data/truth/classes.csv"
    assert inputs["aligned"]["start"] == artifacts.digest_file(start)
    assert inputs["aligned"]["distribution"] == artifacts.digest_file(truth)
    page = (ran.folder / "results/report/index.html").read_text()
    assert "aligned (oracle)" in page and "Examples" in page


def test_branches_are_in_the_files_of_their_experiments_alone(ran):
    """An offline round that learns where branches agree, a curriculum, and the oracle it is compared with."""
    filtered = ran.folder / "results/tiny/st/seed-0/round-1"
    labels = PseudoLabels(filtered / "pseudo_labels.h5")
    assert labels.branches == 2
    for name in labels.names:
        assert (labels.label(name)[labels.agreement(name) < 2] == 255).all()
    table = pd.read_csv(filtered / "pseudo_labels.csv")
    pixels = table.predicted + table.filtered
    assert table.predicted.sum() == round((table.agreeing * pixels).sum()) < pixels.sum() == 7 * 32 * 64
    assert pd.read_csv(filtered / "cut.csv").predicted.tolist() == table.predicted.tolist()
    other = ran.folder / "results/tiny/dars/seed-0/round-1"
    assert PseudoLabels(other / "pseudo_labels.h5").branches == 1
    assert pd.read_csv(other / "pseudo_labels.csv").agreeing.isna().all()

    curriculum = ran.folder / "results/tiny/curriculum/seed-0/round-1"
    manifest = json.loads((curriculum / "manifest.json").read_text())
    assert manifest["network"]["branches"] == 2
    assert set(manifest["inputs"]) == {"labeled", "unlabeled", "statistics"}
    oracle = json.loads((ran.folder / "results/tiny/pretrained/oracle/seed-0/manifest.json").read_text())
    truth = ran.folder / "results/tiny/data/truth/images.csv"
    assert oracle["inputs"]["labeled"] == artifacts.digest_file(truth)
    page = (ran.folder / "results/report/index.html").read_text()
    assert "oracle (oracle)" in page and "gains of curriculum on val" in page and "branches agree, %" in page


def test_only_what_asks_for_a_calibrator_has_one(ran):
    of_model = ran.folder / "results/tiny/pretrained/start/seed-0"
    (found,) = (ran.folder / "results/tiny").rglob("calibrator.json")
    assert found == of_model / "calibration/temperature/calibrator.json"
    assert json.loads(found.read_text())["model"] == artifacts.digest_file(of_model / "model.safetensors")
    table = pd.read_csv(found.with_name("calibration.csv"))
    assert table.split.tolist() == ["calibration"] * 2 + ["val"] * 2 and table.pixels.min() > 0
    with Predictions(of_model / "predictions/prior-0.02-temperature/shard-0-of-1.h5") as shard:
        assert shard.attributes["calibrator"] == artifacts.digest_file(found)
    with Predictions(of_model / "predictions/single/shard-0-of-1.h5") as shard:
        assert "calibrator" not in shard.attributes


def test_another_calibration_reruns_its_round_and_no_training_before_it(project):
    config = tiny_config()
    config["experiments"]["cbst"]["prediction"]["calibration"] = {"name": "histogram_binning", "bins": 9}
    project.configure(config)
    planned = [job for job in project.planned() if job not in TOLD]
    before = [job for job in planned if "pretrained" in job]
    assert sorted(job.split()[0] for job in before) == ["calibrate", "predict", "reliability"], before
    assert "mode=prior-0.02-binning-9" in " ".join(before)
    assert all("cbst" in job for job in planned if job not in before), planned


def test_another_policy_or_evaluation_split_reruns_no_calibration(project):
    config = tiny_config()
    config["experiments"]["cbst"]["policy"] = "st"
    project.configure(config)
    assert not {"calibrate", "predict", "reliability"} & {job.split()[0] for job in project.planned()}
    config = tiny_config()
    evaluation = config["tasks"]["tiny"]["evaluation"]
    evaluation["other"] = {"streets": evaluation["val"]["streets"] | {"seed": 5}}
    project.configure(config)
    jobs = {job.split()[0] for job in project.planned()}
    assert "reliability" in jobs and not {"calibrate", "predict", "train"} & jobs


@pytest.mark.parametrize(
    ("module", "users"),
    [
        ("calibrate/temperature.py", {"calibrate", "reliability", "predict", "choose"}),
        ("calibrate/reliability.py", {"reliability"}),
        ("calibrate/matrix.py", set()),
    ],
)
def test_a_calibrators_code_reruns_what_uses_it(project, module, users):
    append(project, module, "\nADDED = 1\n")
    planned = [job for job in project.planned() if job not in TOLD]
    before = {job.split()[0] for job in planned if "pretrained" in job}
    assert before == users - {"choose"} and all("cbst" in job or "pretrained" in job for job in planned)


def test_predictions_of_an_online_model_can_be_asked_for_and_shown(ran, monkeypatch):
    shard = "results/tiny/curriculum/seed-0/round-1/predictions/single/shard-0-of-1.h5"
    done = ran.snakemake("--", shard)
    assert done.returncode == 0, done.stderr
    monkeypatch.chdir(ran.folder)
    assert call("show", shard, "-o", "shown.png") == 0
    assert (ran.folder / "shown.png").stat().st_size > 10_000
    (ran.folder / shard).unlink()
    (ran.folder / "shown.png").unlink()


def test_a_setting_of_the_mixing_retrains_that_experiment_alone(project):
    config = tiny_config()
    config["experiments"]["classmix"]["algorithm"] = {"name": "mean_teacher_mixing", "mixing": "cutmix"}
    project.configure(config)
    planned = project.planned()
    assert {job.split()[0] for job in planned} == {"train_showing", "evaluate", "preview", "summary", "report"}
    assert len(planned) == 5 and sum("classmix" in job for job in planned) == 2


def test_what_was_planned_is_what_was_done(ran, monkeypatch, capsys):
    monkeypatch.chdir(ran.folder)
    load = Workload(Graph.load("config.yaml"))
    trained = [path.relative_to(ran.folder) for path in ran.folder.glob("results/tiny/**/model.safetensors")]
    for path in trained:
        work, (network, about) = load.of(Job("train", str(path))), files.load(path)
        assert work.steps == about["step"], path
        heads = sum(one.numel() for one in network.heads.parameters())
        assert work.bytes == 4 * (sum(one.numel() for one in network.parameters()) - heads), path
    assert len(trained) == 3 + sum(OFFLINE.values()) + len(ONLINE)
    for path in ran.folder.glob("results/tiny/**/predictions/*/*.h5"):
        with Predictions(path) as predictions:
            assert load.of(Job("predict", str(path.relative_to(ran.folder)))).images == len(predictions)
    assert call("plan", "config.yaml") == 0
    assert "nothing to do" in capsys.readouterr().out


def test_the_hybrid_shows_its_mixtures(ran):
    second = ran.folder / "results/tiny/hybrid/seed-0/round-2"
    assert (second / "examples.h5").is_file()
    inputs = json.loads((second / "manifest.json").read_text())["inputs"]
    assert set(inputs) == {"labeled", "unlabeled", "start", "pseudo_labels"}


def test_running_again_does_nothing(ran):
    assert ran.planned() == []


def test_a_portion_reruns_its_round_and_no_prediction(project):
    config = tiny_config()
    config["experiments"]["dars"]["rounds"][1]["portion"] = 0.4
    project.configure(config)
    planned = project.planned()
    of_round = [job for job in planned if job not in TOLD]
    assert {job.split()[0] for job in of_round} == {"select", "alarms", "label", "merge", "train", "evaluate", "score"}
    assert all("round=2" in job or "round-2" in job for job in of_round), planned
    assert set(planned) - set(of_round) == set(TOLD)


def test_alarms_of_every_round_are_told(ran):
    """After little training most classes are never predicted, and the page says so."""
    for second in (ran.folder / DARS_2, ran.folder / MLSL_2):
        before = second.with_name("round-1")
        first = pd.read_csv(before / "alarms.csv", keep_default_na=False)
        assert {"never_predicted"} <= set(first.alarm) <= {"never_predicted", "beyond", "saturated"}
        assert pd.read_csv(before / "signs.csv").left.isna().all()
        signs, cut = (pd.read_csv(second / name) for name in ("signs.csv", "cut.csv"))
        assert 0 <= signs.left[0] <= 1 and signs.before_share[0] == 1
        assert signs.predicted[1:].tolist() == cut.predicted.tolist()
    page = (ran.folder / "results/report/index.html").read_text()
    assert first.message[0] in page and 'aria-label="alarms of tiny"' in page


def test_a_limit_reruns_the_alarms_and_the_report_alone(project):
    project.configure(tiny_config() | {"alarms": {"disagreement": 0.01, "saturated": False}})
    planned = project.planned()
    assert {job.split()[0] for job in planned} == {"alarms", "report"}
    assert len(planned) == sum(OFFLINE.values()) + 1


def test_what_the_page_shows_of_images_reruns_the_page_alone(project):
    project.configure(tiny_config() | {"report": {"images": 3}})
    assert sorted(project.planned()) == ["preview task=tiny", "report"]
    for settings in ({"embedded": 0}, {"images": 0}):
        project.configure(tiny_config() | {"report": settings})
        assert project.planned() == ["report"]


def test_the_page_shows_images_before_and_after(ran):
    with Preview(ran.folder / "results/tiny/preview.h5") as preview:
        assert len(preview.images) == 7, "all there are"
        assert {"pretrained/start/seed-0", "dars/seed-0/round-2", "classmix/seed-0/round-1"} < set(preview.models)
    page = (ran.folder / "results/report/index.html").read_text()
    (told,) = re.findall(r'<script type="application/json" id="told">(.*?)</script>', page)
    (task,) = json.loads(told)["tasks"]
    keys = {layer["key"] for layer in task["layers"]}
    assert {"truth", "before pretrained/start/seed-0", "labels dars 2", "agreement st 1", "after classmix 1"} < keys
    assert all(set(pictures["layers"]) == keys for pictures in task["pictures"]) and len(task["pictures"]) == 7
    sections = {path.parent.name for path in (ran.folder / "results/report/figures/tiny").rglob("*.svg")}
    drawn = "scores gains sizes places shares confidence calibration training models"
    assert sections == set(drawn.split())


def test_snakemakes_own_report_has_the_page_and_every_figure(ran):
    done = ran.snakemake("--report", "report.zip")
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(ran.folder / "report.zip") as report:
        names = report.namelist()
        told = report.read("report/report.html").decode()
    figures = [path.relative_to(ran.folder / "results/report/figures") for path in ran.folder.rglob("*.svg")]
    assert len(figures) > 20 and all(any(name.endswith(str(figure)) for name in names) for figure in figures)
    assert any(name.endswith("index.html") and "data/raw" in name for name in names)
    assert "Figures" in told and "confidence" in told
    (ran.folder / "report.zip").unlink()


def test_one_more_round_plans_only_that_round(project):
    config = tiny_config()
    config["experiments"]["dars"]["rounds"].append({"portion": 0.6})
    project.configure(config)
    planned = project.planned()
    predictions = [job for job in planned if job.startswith("predict")]
    assert len(predictions) == 1 and "round-2" in predictions[0]
    others = [job for job in planned if job not in (*predictions, *TOLD)]
    assert others and all("round=3" in job or "round-3" in job for job in others), others


def test_a_rounds_prediction_reruns_that_round_and_no_other(project):
    config = tiny_config()
    config["experiments"]["dars"]["rounds"][1]["prediction"] = {"patches": {"size": [16, 32]}}
    project.configure(config)
    planned = project.planned()
    predictions = [job for job in planned if job.startswith("predict")]
    assert len(predictions) == 1 and "dars/seed-0/round-1" in predictions[0] and "sisc-50x16x32" in predictions[0]
    others = [job for job in planned if job not in (*predictions, *TOLD)]
    assert others and all("experiment=dars" in job or "dars/seed-0" in job for job in others), others
    assert all("round=2" in job or "round-2" in job for job in others), others


def test_how_models_are_evaluated_reruns_their_evaluation_alone(project):
    project.configure(tiny_config() | {"evaluation": {"flip": True}})
    planned = project.planned()
    assert {job.split()[0] for job in planned} == {"evaluate", "preview", "summary", "report"}
    assert len(planned) == 3 + sum(ROUNDS.values()) + 3


def append(project: Project, module: str, text: str) -> None:
    with (project.folder / "src/selftrain" / module).open("a") as file:
        file.write(text)


def test_selection_code_reruns_selection_and_not_pretraining(project):
    append(project, "select/dars.py", "\nADDED = 1\n")
    planned = project.planned()
    assert any(job.startswith("select") and "experiment=dars" in job for job in planned)
    assert {found for job in planned for found in re.findall(r"(\w+)/seed|experiment=(\w+)", job)} == {
        ("dars", ""),
        ("", "dars"),
    }, planned


@pytest.mark.parametrize(
    ("module", "targets"),
    [
        ("select/cbst.py", ("--", f"{DARS_2}/metrics.csv", "results/tiny/st/seed-0/round-1/metrics.csv")),
        ("label/choice.py", ("--", f"{DARS_2}/metrics.csv", f"{MLSL_2}/metrics.csv")),
        ("models/decoders/aspp.py", ()),
        ("settings/base.py", ()),
    ],
)
def test_code_that_is_not_used_reruns_nothing(project, module, targets):
    append(project, module, "\nADDED = 1\n")
    assert project.planned(*targets) == []


@pytest.mark.parametrize(
    ("module", "users"),
    [
        ("train/algorithms/self_training.py", set(OFFLINE) - {"hybrid"}),  # of which weak labels are a kind
        ("train/algorithms/mean_teacher_mixing.py", set(MIXING)),
        ("train/algorithms/hybrid.py", {"hybrid"}),
        ("train/algorithms/curriculum.py", {"curriculum"}),
        ("train/algorithms/weak_labels.py", {"mlsl"}),
        ("models/heads.py", {"mlsl"}),
    ],
)
def test_an_algorithm_that_is_not_used_reruns_nothing(project, module, users):
    append(project, module, "\nADDED = 1\n")
    planned = project.planned()
    assert all(
        job in TOLD or any(f"{name}/" in job or f"experiment={name}," in job for name in users) for job in planned
    )
    retrained = [job for job in planned if job.startswith("train")]
    assert {re.search(r"model=(\w+)/", job)[1] for job in retrained} == users


def test_comments_and_docstrings_rerun_nothing(project):
    append(project, "train/stage.py", "\n# A comment.\n")
    assert project.planned() == []


def test_code_can_be_no_input(project):
    project.configure(tiny_config() | {"code_is_input": False})
    append(project, "train/stage.py", "\nADDED = 1\n")
    assert project.planned() == []
    project.configure(tiny_config())
    assert any("train" in job for job in project.planned())


def test_machine_settings_rerun_nothing(project):
    project.configure(
        tiny_config() | {"machine": {"threads": 2, "workers": 1, "processes": 2, "checkpoint_seconds": 5}}
    )
    assert project.planned() == []


def test_a_round_can_be_forced_alone(project):
    planned = project.planned("--force", "--", f"{DARS_2}/model.safetensors")
    assert planned == ["train task=tiny, model=dars/seed-0/round-2"]


def test_shards_change_no_byte(project):
    target = project.folder / "results/tiny/dars/seed-0/round-1/pseudo_labels.h5"
    whole = artifacts.digest_file(target)
    project.configure(tiny_config() | {"shards": 2})
    code, told = project.forked("--", str(target.relative_to(project.folder)))
    assert code == 0 and "shard=1" in told, told
    assert artifacts.digest_file(target) == whole


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda c: c["experiments"]["dars"].update(polcy="dars"), ["experiments.dars", "'polcy'", "'policy'"]),
        (lambda c: c["experiments"]["dars"]["rounds"][1].update(portion=1.5), ["rounds[1].portion", "1.5"]),
        (lambda c: c["train"].update(steps="many"), ["train.steps", "many"]),
        (
            lambda c: c["tasks"]["tiny"].update(labeled={"images": "no/*.png", "labels": "no/*.png"}),
            ["tiny.labeled", "no/*.png"],
        ),
    ],
)
def test_a_wrong_config_is_one_error_before_any_job(project, change, told):
    config = tiny_config()
    change(config)
    project.configure(config)
    code, said = project.forked()
    assert code != 0
    assert "Traceback" not in said and "rule " not in said
    assert "error: " in said and all(text in said for text in told), said


def test_a_broken_image_is_named_before_training(tmp_path):
    config = tiny_config()
    (tmp_path / "own/images").mkdir(parents=True)
    (tmp_path / "own/images/broken.png").write_bytes(b"no image")
    config["tasks"]["tiny"]["unlabeled"] = {"images": "own/images/*.png"}
    config["tasks"]["tiny"]["truth"] = False
    for entry in ("experiments.aligned", "experiments.curriculum", "pretrain.oracle"):  # with the truth
        section, name = entry.split(".")
        del config[section][name]
    project = Project(tmp_path, config)
    code, said = project.forked()
    assert code != 0
    assert "own/images/broken.png: not readable as an image" in said
    assert "Traceback" not in said and "rule train" not in said
    assert not (tmp_path / "results/tiny/data/checked.csv").exists()


def test_snakemake_reads_the_config_given_instead_of_the_default(ran):
    other = tiny_config()
    other["tasks"] = {"other": other["tasks"]["tiny"]}
    (ran.folder / "other.yaml").write_text(yaml.safe_dump(other))
    planned = ran.planned("--configfile", "other.yaml")
    assert any("task=other" in job for job in planned)
    assert not any("task=tiny" in job for job in planned)


def test_a_folder_of_results_may_have_any_name(tmp_path):
    """With what a shell would take apart, or run."""
    config = tiny_config() | {"results": "it's my $(touch ran) results/"}
    results = config["results"].removesuffix("/")
    jobs = [job for job in planned(tmp_path, config) if job.rule != "all"]
    assert len({job.rule for job in jobs}) > 15
    for job in jobs:
        paths = [argument.split("=")[-1] for argument in job.arguments if "results" in argument]
        assert set(job.outputs) & set(paths) and all(path.startswith(f"{results}/") for path in paths), job
    project = Project(tmp_path, config)
    code, told = project.forked("--", f"{results}/tiny/data/labeled/classes.csv")
    assert code == 0, told
    assert (tmp_path / results / "tiny/data/labeled/classes.csv").is_file()
    assert not list(tmp_path.rglob("ran"))
