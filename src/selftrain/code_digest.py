"""Code as an input: a digest of the modules that a stage really uses, so that Snakemake sees a change in them.

The digest covers the import closure, found in the source's syntax tree, so comments, blank lines and docstrings (of
attributes, too) do not count; a file beside a module under the same name, such as a template, counts whole. Registries
name their entries as text, so only those chosen (and given here) are part of it; settings never are, nor is the package
itself, which only says its version and what users import from it.

To parse the package takes longer than all else that a run asks of this checkout before its first job, so a run keeps
what it found in each module's source, and the next one parses only what has changed.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
import sysconfig
from contextlib import suppress
from functools import cached_property, lru_cache
from pathlib import Path

from pydantic import TypeAdapter

from selftrain import artifacts, registry
from selftrain.errors import UserError

SOURCE = Path(__file__).parent
PACKAGE = SOURCE.name
LEFT_OUT = ("selftrain.settings", "selftrain.registry")
"""What a stage was told is in its params already, and what it chose from the registry is given to `Sources.digest`."""

INSTALLED = ("purelib", "platlib")
"""Where Python keeps installed packages, as `sysconfig` calls it."""

Found = tuple[str, str, tuple[str, ...]]
"""Of a module: digests of its source, and of its code without comments and docstrings; and the modules it imports."""
KEPT = TypeAdapter(dict[str, dict[str, Found]])


class Sources:
    """The package's modules, each read once.

    Args:
        file: where runs keep what they find in each module. What was found in another source, or by another Python or
            other code than stands here, is not used; a file that cannot be read or written is as none.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.file = file
        self.found: dict[str, Found] = {}

    def digest(self, *modules: str) -> str:
        """Sixteen hex digits of all code that `modules` reach."""
        return artifacts.digest([(one, self.of(one)[1], _companions(one)) for one in sorted(self.closure(*modules))])

    def closure(self, *modules: str) -> set[str]:
        """The package's modules that `modules` import, directly or not, wherever in the file; themselves included."""
        reached: set[str] = set()
        waiting = list(modules)
        while waiting:
            module = waiting.pop()
            if module in reached or module == PACKAGE or module.startswith(LEFT_OUT) or _file(module) is None:
                continue
            reached.add(module)
            waiting += self.of(module)[2]
        return reached

    def of(self, module: str) -> Found:
        """What is found in a module."""
        if module not in self.found:
            source = Path(str(_file(module))).read_bytes()
            digest, known = hashlib.sha256(source).hexdigest(), self.kept.get(module)
            self.found[module] = known if known and known[0] == digest else (digest, *_parsed(source))
        return self.found[module]

    @cached_property
    def kept(self) -> dict[str, Found]:
        """What earlier runs found."""
        try:
            return KEPT.validate_json(self.file.read_bytes()).get(_finder(), {}) if self.file else {}
        except (OSError, ValueError):
            return {}

    def keep(self) -> None:
        """Write what is known now, if that is more than there was."""
        if self.file and not self.found.items() <= self.kept.items():
            with suppress(UserError, OSError):
                artifacts.write_json(self.file, {_finder(): self.kept | self.found})


class CodeDigests:
    """The digests of one run's jobs.

    Args:
        file: where a run keeps the digests it used.
        frozen: use those instead of the code's own, so that an upgrade in the middle of a study reruns nothing.
    """

    def __init__(self, file: Path, *, frozen: bool) -> None:
        self.file, self.frozen = file, frozen
        self.sources = Sources(file.with_name("modules.json"))
        self.used: dict[str, str] = {}
        self.remembered: dict[str, str] = json.loads(file.read_text()) if file.is_file() else {}

    def of(self, *modules: str, own: str | None = None) -> str:
        """The digest of all code that `modules` reach, and of a user's own 'package.module:attribute'."""
        key = " ".join([*modules, *filter(None, [own])])
        if self.frozen and key in self.remembered:
            return self.remembered[key]
        if key not in self.used:
            of_own = _digest_of_own(registry.file_of(own)) if own else ""
            self.used[key] = self.sources.digest(*modules) + of_own
        return self.used[key]

    def remember(self) -> None:
        """Keep the digests of a run that begins."""
        if not self.frozen:
            artifacts.write_json(self.file, self.remembered | self.used)
        self.sources.keep()


def _digest_of_own(file: Path) -> str:
    """Of a user's own module: all code of the package that it is in; of an installed one the module's file alone."""
    root = file.parent
    if not (root / "__init__.py").is_file() or any(file.is_relative_to(sysconfig.get_path(lib)) for lib in INSTALLED):
        return artifacts.digest_file(file)
    while (root.parent / "__init__.py").is_file():
        root = root.parent
    return artifacts.digest({str(one.relative_to(root)): artifacts.digest_file(one) for one in root.rglob("*.py")})


@lru_cache
def _finder() -> str:
    """By what modules are parsed: this Python, and the code that stands here."""
    return f"{sys.version} {artifacts.digest_file(__file__)}"


@lru_cache
def _files() -> dict[str, Path]:
    """The package's modules."""
    parts = {file: file.relative_to(SOURCE.parent).with_suffix("").parts for file in SOURCE.rglob("*.py")}
    return {".".join(names).removesuffix(".__init__"): file for file, names in parts.items()}


def _file(module: str) -> Path | None:
    """The file of one of the package's modules."""
    return _files().get(module)


@lru_cache
def _companions(module: str) -> dict[str, str]:
    """Digests of what lies beside a module under its name and is no code, such as the template page.html of page.py."""
    code = Path(str(_file(module)))
    beside = (path for path in code.parent.glob(f"{code.stem}.*") if not path.suffix.startswith((".py", ".so")))
    return {path.name: artifacts.digest_file(path) for path in beside}


def _parsed(source: bytes) -> tuple[str, tuple[str, ...]]:
    """A digest of a module's code without comments and docstrings, and the modules it imports."""
    tree = ast.parse(source)
    imported: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for part in ("body", "orelse", "finalbody"):
            if isinstance(statements := getattr(node, part, None), list):
                setattr(node, part, [one for one in statements if not _is_text(one)])
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), tuple(imported)


def _is_text(statement: ast.AST) -> bool:
    """Whether it is a text that stands alone: a docstring, or one below an attribute."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
