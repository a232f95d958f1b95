"""What made an artifact: versions, commit, device, settings, digests of its inputs."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

from selftrain import __version__, artifacts

PACKAGES = ("torch", "torchvision", "timm", "lightning-fabric", "numpy", "h5py", "pillow")


def manifest(settings: dict[str, Any], inputs: dict[str, Path | None], **facts: Any) -> dict[str, Any]:
    """The facts that a manifest holds; `facts` are the stage's own."""
    return {
        "selftrain": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "settings": settings,
        "inputs": {name: artifacts.digest_file(path) for name, path in inputs.items() if path is not None},
        **facts,
    }


def _commit() -> str | None:
    """The commit of the source tree that runs, marked if it has changes; none outside a checkout."""
    checkout = Path(__file__).resolve().parents[2]
    top = _git(checkout, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != checkout:  # installed somewhere in a repository of other code
        return None
    return _git(checkout, "describe", "--always", "--dirty", "--abbrev=12")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
