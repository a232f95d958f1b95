"""Every key of the config as a page, docs/settings.md, made from the settings models; `make schema` writes it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from selftrain.settings.config import Config

HEAD = """# All settings

Every key that a config may have, with its default and its meaning; made by `make schema` from the settings models.
A key that is in no section is an error which names the nearest valid one. `–`: it must be given. A choice by name may
stand alone: `policy: dars` for `policy: {name: dars}`. What `train`, `model` and `prediction` say at the top is where
every pretraining, experiment and round starts from. When to set what: [methods](methods/README.md),
[networks](networks.md), [start](start.md). Four keys mean two things, by their place: `start` of a pretraining is a
file, of an experiment where it begins; `evaluation` of a task are its splits, at the top how models predict them;
`calibration` of a task is a split, of `prediction` a calibrator; `labels` of a split are files, of a pretraining whose
they are.
"""

Schema = dict[str, Any]


def page() -> str:
    """The page, in Markdown: a section per mapping, in the order in which they are found."""
    whole = Config.model_json_schema()
    definitions = whole["$defs"]
    sections, places = [HEAD], {"Config": ""}
    waiting = [("Config", whole)]
    while waiting:
        name, model = waiting.pop(0)
        for key, told in model["properties"].items():
            for kind in _models_in(told):
                if kind not in places:
                    places[kind] = _place(places[name], key, told, definitions[kind])
                    waiting.append((kind, definitions[kind]))
        sections.append(_section(name, model, places))
    return "\n".join(sections)


def _section(name: str, model: Schema, places: dict[str, str]) -> str:
    place = places[name]
    lines = [f"## `{place}`" if place else "## At the top", "", _one_line(model.get("description", "")), ""]
    rows = [_row(key, told, model, places) for key, told in model["properties"].items() if "const" not in told]
    if rows:
        lines += ["| key | default | |", "|---|---|---|", *rows, ""]
    return "\n".join(lines)


def _row(key: str, told: Schema, model: Schema, places: dict[str, str]) -> str:
    required = key in model.get("required", ()) or "minProperties" in told
    default = "–" if required else _written(told.get("default"))
    values = ", ".join(map(str, told.get("enum", ())))
    links = [f"[`{places[kind]}`](#{_anchor(places[kind])})" for kind in _models_in(told)]
    said = [values, _one_line(told.get("description", "")), ", ".join(links)]
    return f"| `{key}` | {default} | {'. '.join(part.rstrip('.') for part in said if part)} |"


def _models_in(told: Schema) -> list[str]:
    """The models that a key's value may be, by name."""
    return list(dict.fromkeys(_references(told)))


def _references(told: Any) -> Iterator[str]:
    if isinstance(told, list):
        for one in told:
            yield from _references(one)
    elif isinstance(told, dict):
        if "$ref" in told:
            yield told["$ref"].rpartition("/")[2]
        for key, one in told.items():
            if key not in ("discriminator", "default"):
                yield from _references(one)


def _place(above: str, key: str, told: Schema, model: Schema) -> str:
    """Where a model is first found, as a path of keys; a choice with its name."""
    path = ".".join(filter(None, [above.partition(": ")[0], key])) + (".NAME" if _is_named(told) else "")
    name = model["properties"].get("name", {}).get("const")
    return f"{path}: {name}" if name else path


def _is_named(told: Schema) -> bool:
    return "patternProperties" in told or "additionalProperties" in told


def _written(default: Any) -> str:
    """A default as a config would have it; of a mapping, the name of the choice, or nothing, since its keys say it."""
    if isinstance(default, dict):
        return str(default.get("name", "")) if default else "{}"
    if isinstance(default, list):
        return f"[{', '.join(map(_written, default))}]"
    if default in (None, ""):
        return "none"
    return (
        str(default).lower()
        if isinstance(default, bool)
        else f"{default:g}"
        if isinstance(default, float)
        else str(default)
    )


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _anchor(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
