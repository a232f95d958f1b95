"""Which parts of a config start from which others, filled in before it is validated."""

from typing import Any

from selftrain.settings.base import by_name, deep_merge

DEFAULTS = ("model", "train", "prediction")
"""Top-level sections whose values every pretraining, experiment and round starts from."""
DEFAULT_STEPS = 1000


def with_defaults(raw: dict[str, Any]) -> dict[str, Any]:
    """Write the top-level sections into every place that inherits them, before validation."""
    sections = (*DEFAULTS, "evaluation", "alarms", "experiments", "machine")
    empty = [key for key in sections if key in raw and raw[key] is None]
    filled = {"train": {}} | {key: raw[key] for key in raw if key not in empty}
    if isinstance(filled["train"], dict):
        filled["train"] = deep_merge({"steps": DEFAULT_STEPS}, filled["train"])
    for section, inherits in (("pretrain", _pretrain_inherits), ("experiments", _experiment_inherits)):
        if isinstance(filled.get(section), dict):
            base = {key: filled[key] for key in DEFAULTS if isinstance(filled.get(key), dict)}
            filled[section] = {name: _inherit(inherits(base, entry), entry) for name, entry in filled[section].items()}
    if isinstance(filled.get("experiments"), dict):
        experiments = filled["experiments"].items()
        filled["experiments"] = {name: _fill_in_rounds(entry, raw.get("pretrain")) for name, entry in experiments}
    return filled


def _pretrain_inherits(base: dict[str, Any], entry: Any) -> dict[str, Any]:
    return {key: base[key] for key in ("model", "train") if key in base}


def _experiment_inherits(base: dict[str, Any], entry: Any) -> dict[str, Any]:
    """What an experiment of this kind starts from: predictions are for rounds, a teacher for who learns from one."""
    entry = entry if isinstance(entry, dict) else {}
    keys = ("train",) if entry.get("rounds") is None else ("train", "prediction")
    inherited = {key: base[key] for key in keys if key in base}
    algorithm = by_name(entry.get("algorithm"))
    if isinstance(algorithm, dict) and algorithm.get("name") == "mean_teacher_mixing":
        inherited["train"] = deep_merge({"teacher": {}}, base.get("train", {}))
    return inherited


def _inherit(base: dict[str, Any], entry: Any) -> Any:
    return deep_merge(base, entry) if isinstance(entry, dict) else base if entry is None else entry


def _fill_in_rounds(entry: Any, pretrain: Any) -> Any:
    if not isinstance(entry, dict):
        return entry
    entry = dict(entry)
    if "pretrain" not in entry and isinstance(pretrain, dict) and pretrain:
        entry["pretrain"] = next(iter(pretrain))
    if isinstance(entry.get("rounds"), list):
        base = {key: entry[key] for key in ("train", "prediction") if isinstance(entry.get(key), dict)}
        entry["rounds"] = [_inherit(base, one) for one in entry["rounds"]]
    return entry
