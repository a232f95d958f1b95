"""Reading config files, and telling what is wrong with them: one line per problem, in the words of the file."""

import os
import reprlib
from collections import Counter
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from selftrain.errors import UserError
from selftrain.settings.base import deep_merge, nearest
from selftrain.settings.config import Config
from selftrain.settings.inheritance import with_defaults

Keys = tuple[int | str, ...]


def parse(raw: Any, source: str = "config") -> Config:
    """Turn the raw mapping of a config file into settings, or raise one UserError that lists every problem."""
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        raise UserError(f"{source}: " + _told(error, raw)) from None


def load(*paths: Path | str, over: dict[str, Any] | None = None) -> Config:
    """Read config files (YAML), the values of each over those of the files before it, and `over` over all."""
    files: dict[Path, str] = {}
    raw = read(*paths, files=files)
    source = ", ".join([*map(str, paths), *(["what is included"] if len(files) > len(paths) else [])])
    return parse(deep_merge(raw, over or {}), source + (", --config" if over else ""))


def read(*paths: Path | str, files: dict[Path, str] | None = None) -> dict[str, Any]:
    """What config files say together with those that they include, not yet validated.

    Args:
        paths: of the config files.
        files: filled with all that are read.
    """
    raw: dict[str, Any] = {}
    read_before: dict[Path, str] = {} if files is None else files
    for path in paths:
        raw = deep_merge(raw, _with_included(Path(path), read_before))
    return raw


def _with_included(path: Path, before: dict[Path, str], within: tuple[Path, ...] = ()) -> dict[str, Any]:
    """What a file says, over what the files say that it includes, whose paths start from its own folder.

    A file that was read before says nothing again, so that it undoes nothing of what was said after it.
    """
    where = f"{within[-1]}: include: " if within else ""
    if path.resolve() in [one.resolve() for one in within]:
        raise UserError(f"{where}{path} includes this file; take one of the two out")
    if path.resolve() in before:
        return {}
    own = _content(path, where)
    included = own.pop("include", None) or []
    if not isinstance(included, list) or not all(isinstance(file, str) for file in included):
        raise UserError(f"{path}: include: should be a list of config files, not {included!r}")
    raw: dict[str, Any] = {}
    for file in included:
        raw = deep_merge(raw, _with_included(Path(os.path.normpath(path.parent / file)), before, (*within, path)))
    before[path.resolve()] = str(path)
    return deep_merge(raw, own)


def _content(path: Path, where: str) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{where}{path}: no such config file")
    try:
        raw = yaml.load(path.read_text("utf-8"), _Loader)
    except (yaml.YAMLError, OSError, ValueError, RecursionError) as error:  # ValueError: of text, dates, numbers
        raise UserError(f"{where}{path}: not readable as YAML: {error}") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path}: should be a mapping of keys" + (f", not {raw!r}" if raw is not None else ""))
    return raw


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice, of which YAML would silently drop the first, and a null character, which no
    name of a file can have; tells where a value is none of its tag, as in `!!bool x`, where PyYAML fails by accident.
    """

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if isinstance(node, yaml.ScalarNode) and "\0" in node.value:
            raise yaml.constructor.ConstructorError(None, None, "a null character", node.start_mark)
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError) as error:
            why = f" ({error})" if isinstance(error, ValueError) else ""
            reason = f"{reprlib.repr(node.value)} is no {node.tag.rpartition(':')[2]}{why}"
            raise yaml.constructor.ConstructorError(None, None, reason, node.start_mark) from None

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        twice = [key for key, count in keys.items() if count > 1]
        if twice:
            raise yaml.composer.ComposerError(None, None, f"the key '{twice[0]}' is there twice", node.start_mark)
        return node


def _told(error: ValidationError, raw: Any) -> str:
    """One line per problem, each named by its key; what is inherited is told once, where it comes from."""
    filled = with_defaults(raw) if isinstance(raw, dict) else raw
    problems = [(_path(problem["loc"], filled), _reason(problem)) for problem in error.errors()]
    lines = []
    for path, reason in problems:
        inherited = not _is_in(raw, path) and any((source, reason) in problems for source in _sources(path))
        # Pydantic calls a list too short whose entries are all wrong.
        hollow = reason == _REASONS["too_short"] and any(other[: len(path)] == path != other for other, _ in problems)
        if not inherited and not hollow:
            lines.append(f"{_key(path, filled)}: {reason}" if path else reason)
    lines = list(dict.fromkeys(lines))
    return lines[0] if len(lines) == 1 else "\n  ".join([f"{len(lines)} problems", *lines])


def _path(location: Keys, filled: Any) -> Keys:
    """The keys that lead to a value in the file, without the steps that pydantic adds: union tags, `[...]`."""
    path: list[int | str] = []
    node = filled
    for part in location:
        tag = node.get("name") if isinstance(node, dict) else node
        if part != tag and not str(part).startswith("["):
            path.append(part)
            node = _below(node, part)
    return tuple(path)


def _below(node: Any, part: int | str) -> Any:
    try:
        return node[part]
    except (KeyError, IndexError, TypeError):
        return None


def _is_in(raw: Any, path: Keys) -> bool:
    for part in path:
        raw = _below(raw, part)
    return raw is not None


def _sources(path: Keys) -> list[Keys]:
    """Where the value at `path` may be inherited from."""
    if path[:1] == ("experiments",) and path[2:3] == ("rounds",):
        return [path[:2] + path[4:], path[4:]]
    return [path[2:]] if path[:1] in (("pretrain",), ("experiments",)) else []


def _key(path: Keys, filled: Any) -> str:
    """`('experiments', 'dars', 'rounds', 1, 'portion')` as `experiments.dars.rounds[1].portion`."""
    key = ""
    for part in path:
        key += f"[{part}]" if isinstance(filled, list) else f".{part}" if key else str(part)
        filled = _below(filled, part)
    return key


_REASONS = {
    "missing": "is missing",
    "union_tag_not_found": "'name' is missing",
    "string_pattern_mismatch": "a name is made of letters, digits, '-' and '_'",
    "model_type": "should be a mapping of keys",
    "model_attributes_type": "should be a mapping of keys",
    "dict_type": "should be a mapping of keys",
    "tuple_type": "should be a list",
    "too_short": "has too few entries",
    "too_long": "has too many entries",
    "int_type": "should be a whole number",
    "int_parsing": "should be a whole number",
    "int_from_float": "should be a whole number",
    "float_type": "should be a number",
    "float_parsing": "should be a number",
    "bool_type": "should be true or false",
    "bool_parsing": "should be true or false",
    "string_type": "should be text",
}


def _reason(problem: Any) -> str:
    """What is wrong, in words that need no knowledge of pydantic or Python."""
    kind, given = problem["type"], problem["input"]
    if kind == "union_tag_invalid":
        return nearest(problem["ctx"]["tag"], problem["ctx"]["expected_tags"].replace("'", "").split(", "), "name")
    reason = _REASONS.get(kind, problem["msg"].removeprefix("Value error, ").replace("Input should be", "should be"))
    if kind in ("missing", "value_error", "refused", "union_tag_not_found", "too_short", "too_long"):
        return reason
    return (
        f"{reason}, not {given!r}"
        if isinstance(given, str | int | float)
        else f"{reason}{', not empty' * (given is None)}"
    )
