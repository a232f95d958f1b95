"""Config files that include others, and several given together."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from test_settings import GOOD, good

from selftrain.errors import UserError
from selftrain.settings.config_file import load, parse

TASKS = {
    "town": {
        "classes": ["sky", "road"],
        "labeled": {"images": "a/*", "labels": "b/*"},
        "unlabeled": {"images": "c/*"},
        "evaluation": {"val": {"images": "d/*", "labels": "e/*"}},
    }
}


def write(path: Path, *include: str, **content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(({"include": list(include)} if include else {}) | content))
    return path


def test_a_file_goes_over_what_it_includes_in_order(tmp_path: Path) -> None:
    write(tmp_path / "shared/tasks.yaml", tasks=TASKS, seeds=[1], shards=3, batch_size=5)
    write(
        tmp_path / "shared/sgd.yaml", train={"steps": 7, "optimizer": {"name": "sgd", "lr": 0.5}}, seeds=[2], shards=4
    )
    own = {"train": {"optimizer": {"momentum": 0.1}}, "seeds": [3], "pretrain": {"base": {}}}
    config = load(write(tmp_path / "papers/one.yaml", "../shared/tasks.yaml", "../shared/sgd.yaml", **own))
    assert (config.seeds, config.shards, config.batch_size, list(config.tasks)) == ((3,), 4, 5, ["town"])
    optimizer = config.pretrain["base"].train.optimizer
    assert (optimizer.name, optimizer.lr, optimizer.momentum, config.train.steps) == ("sgd", 0.5, 0.1, 7)


def test_another_choice_takes_none_of_the_settings_of_the_one_before(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", tasks=TASKS, train={"steps": 5, "optimizer": {"name": "sgd", "lr": 0.5}})
    over = {"train": {"epochs": 2, "optimizer": {"name": "adamw"}}, "pretrain": {"base": {}}}
    train = load(write(tmp_path / "top.yaml", "base.yaml", **over)).train
    assert (train.optimizer.lr, train.steps, train.epochs) == (1e-3, None, 2)


def test_what_is_included_may_include(tmp_path: Path) -> None:
    write(tmp_path / "a/b/deep.yaml", tasks=TASKS)
    write(tmp_path / "a/middle.yaml", "b/deep.yaml", pretrain={"base": {}})
    assert list(load(write(tmp_path / "top.yaml", "a/middle.yaml", seeds=[4])).tasks) == ["town"]


def test_several_files_go_over_one_another_and_single_values_over_all(tmp_path: Path) -> None:
    first = write(tmp_path / "x/first.yaml", "../tasks.yaml", pretrain={"base": {}}, seeds=[1], shards=2)
    write(tmp_path / "tasks.yaml", tasks=TASKS)
    second = write(tmp_path / "second.yaml", seeds=[2], shards=3)
    config = load(first, second, over={"shards": 4})
    assert (config.seeds, config.shards) == ((2,), 4)


def test_a_file_that_is_included_twice_undoes_nothing(tmp_path: Path) -> None:
    write(tmp_path / "shared.yaml", tasks=TASKS, pretrain={"base": {}}, shards=2, seeds=[5])
    write(tmp_path / "one.yaml", "shared.yaml", shards=7)
    write(tmp_path / "other.yaml", "shared.yaml", seeds=[4])
    config = load(write(tmp_path / "top.yaml", "one.yaml", "other.yaml"))
    assert (config.shards, config.seeds) == (7, (4,))
    assert load(tmp_path / "one.yaml", tmp_path / "other.yaml") == config


def test_a_circle_through_a_link_is_one(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path)
    top = write(tmp_path / "top.yaml", "loop/top.yaml")
    with pytest.raises(UserError, match="includes this file"):
        load(top)


def test_mistakes_name_the_file(tmp_path: Path) -> None:
    top = write(tmp_path / "top.yaml", "missing.yaml")
    with pytest.raises(UserError) as error:
        load(top)
    assert str(error.value) == f"{top}: include: {tmp_path / 'missing.yaml'}: no such config file"
    write(tmp_path / "missing.yaml", "top.yaml")
    with pytest.raises(UserError, match=r"missing\.yaml: include: .*top\.yaml includes this file; take one of the two"):
        load(top)
    top.write_text("include: missing.yaml")
    with pytest.raises(UserError, match=r"top\.yaml: include: should be a list of config files, not 'missing\.yaml'"):
        load(top)
    write(tmp_path / "missing.yaml", stpes=3)
    top.write_text("include: [missing.yaml]")
    with pytest.raises(UserError, match=r"top\.yaml, what is included: .*\n.*stpes: unknown key"):
        load(top)


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "config.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_load_reads_yaml(tmp_path: Path) -> None:
    assert load(written(tmp_path, yaml.safe_dump(GOOD))) == parse(GOOD)


def test_load_reads_names_in_any_script(tmp_path: Path) -> None:
    path = written(tmp_path, yaml.safe_dump(good(("tasks.town.classes", ["空", "道", "車"])), allow_unicode=True))
    assert load(path).tasks["town"].classes == ("空", "道", "車")


def test_yaml_merge_keys_may_override(tmp_path: Path) -> None:
    text = "deep: {one: {two: &two {<<: &base {a: 1, b: 2}, a: 3}}}\nflat: {<<: *two, b: 4}\n"
    with pytest.raises(UserError) as error:
        load(written(tmp_path, text))
    assert "twice" not in str(error.value)
