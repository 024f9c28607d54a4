"""The version before several nodes, installed from wheels that are built from its commit."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FORMER_COMMIT = "e9ece1d"  # the last one before journals in PostgreSQL, runs of events and errands


def is_known() -> bool:
    """Whether this clone has the commit: one made without history has not."""
    found = subprocess.run(
        ["git", "-C", str(ROOT), "cat-file", "-e", f"{FORMER_COMMIT}^{{commit}}"], check=False, capture_output=True
    )
    return found.returncode == 0


def install(directory: Path) -> Path:
    """Build both wheels of the commit and install them, without dependencies, below ``directory``; where they are."""
    source, wheels, installed = (directory / name for name in ("source", "wheels", "installed"))
    source.mkdir(parents=True)
    archive = directory / "source.tar"
    _run("git", "-C", str(ROOT), "archive", "--output", str(archive), FORMER_COMMIT)
    shutil.unpack_archive(archive, source)
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    _run(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(wheels), str(source), str(source / "protos"))
    found = [str(wheel) for wheel in sorted(wheels.glob("*.whl"))]
    _run(*pip, "install", "--no-deps", "--no-index", "--target", str(installed), *found)
    return installed


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command[:4])}: {done.stderr[-2_000:]}"
