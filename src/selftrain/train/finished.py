"""Results of trainings that Snakemake may not know to be finished: killed just then, it would have them trained anew.

They are links to the results, thus take no space, and are removed when a run has ended well.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from selftrain import artifacts


def keep(folder: Path, files: Mapping[str, Path]) -> None:
    """Keep files by name, all of them or none."""
    part = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(part, ignore_errors=True)  # of a killed process
    part.mkdir(parents=True)
    for name, file in files.items():
        try:
            (part / name).hardlink_to(file)
        except OSError:  # a file system without links
            shutil.copy2(file, part / name)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def take(folder: Path, files: Mapping[str, Path]) -> bool:
    """Write what `keep` kept where it belongs; returns whether there was anything."""
    if not all((folder / name).is_file() for name in files):
        return False
    for name, file in files.items():
        with artifacts.writing(file) as temporary:
            shutil.copyfile(folder / name, temporary)
    return True
