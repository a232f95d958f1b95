"""Code as an input: a digest of the modules that a stage really uses, so that Snakemake sees a change in them.

The digest covers the import closure, found in the source's syntax tree, so comments, blank lines and docstrings do not
count; a file beside a module under the same name, such as a template, counts whole. Registries name their entries as
text, so only those chosen (and given here) are part of it; settings never are.
"""

from __future__ import annotations

import ast
import hashlib
import json
from functools import lru_cache
from pathlib import Path

from selftrain import artifacts, registry

PACKAGE = "selftrain"
SOURCE = Path(__file__).parent
LEFT_OUT = ("selftrain.settings", "selftrain.registry")
"""What a stage was told is in its params already, and what it chose from the registry is given to `code_digest`."""


def code_digest(*modules: str) -> str:
    """Sixteen hex digits of all code that `modules` reach."""
    return _digest(tuple(sorted(closure(*modules))))


@lru_cache
def _digest(modules: tuple[str, ...]) -> str:
    whole = hashlib.sha256()
    for module in modules:
        whole.update(module.encode() + b"\0" + _read(module)[0].encode() + b"\0")
        for companion in _companions(module):
            whole.update(companion.name.encode() + b"\0" + companion.read_bytes() + b"\0")
    return whole.hexdigest()[:16]


class CodeDigests:
    """The digests of one run's jobs.

    Args:
        file: where a run keeps the digests it used.
        frozen: use those instead of the code's own, so that an upgrade in the middle of a study reruns nothing.
    """

    def __init__(self, file: Path, *, frozen: bool) -> None:
        self.file, self.frozen = file, frozen
        self.used: dict[str, str] = {}
        self.remembered: dict[str, str] = json.loads(file.read_text()) if file.is_file() else {}

    def of(self, *modules: str, own: str | None = None) -> str:
        """The digest of all code that `modules` reach, and of a user's own 'package.module:attribute'."""
        key = " ".join([*modules, *filter(None, [own])])
        if self.frozen and key in self.remembered:
            return self.remembered[key]
        if key not in self.used:
            self.used[key] = code_digest(*modules) + (artifacts.digest_file(registry.file_of(own)) if own else "")
        return self.used[key]

    def remember(self) -> None:
        """Keep the digests of a run that begins."""
        if not self.frozen:
            artifacts.write_json(self.file, self.remembered | self.used)


def closure(*modules: str) -> set[str]:
    """The package's modules that `modules` import, directly or not, wherever in the file; themselves included."""
    reached: set[str] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module in reached or module.startswith(LEFT_OUT) or _file(module) is None:
            continue
        reached.add(module)
        waiting += _read(module)[1]
    return reached


def _file(module: str) -> Path | None:
    """The file of one of the package's modules."""
    head, *rest = module.split(".")
    if head != PACKAGE:
        return None
    path = SOURCE.joinpath(*rest)
    return next((file for file in (path / "__init__.py", path.with_suffix(".py")) if file.is_file()), None)


def _companions(module: str) -> list[Path]:
    """What lies beside a module under its name and is no code, such as the template page.html of page.py."""
    code = Path(str(_file(module)))
    return sorted(path for path in code.parent.glob(f"{code.stem}.*") if not path.suffix.startswith((".py", ".so")))


@lru_cache
def _read(module: str) -> tuple[str, tuple[str, ...]]:
    """A module's code without comments and docstrings, and the modules it imports."""
    tree = ast.parse(Path(str(_file(module))).read_bytes())
    imported: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            _drop_docstring(node)
    return ast.dump(tree), tuple(imported)


def _drop_docstring(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> None:
    first = node.body[0] if node.body else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        node.body = node.body[1:]
