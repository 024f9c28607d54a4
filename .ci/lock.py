"""Pins every dependency of both distributions, with hashes and without any index's address: ``constraints.txt``."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def wanted() -> list[str]:
    """What the two distributions ask for, extras included, but for each other."""
    server = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    client = tomllib.loads((ROOT / "protos/pyproject.toml").read_text())["project"]
    extras = [requirement for extra in server["optional-dependencies"].values() for requirement in extra]
    every = server["dependencies"] + client["dependencies"] + extras
    return sorted({requirement for requirement in every if not re.match(r"stockade\b", requirement)})


def main() -> int:
    """Run pip-compile; its exit code."""
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "requirements.in"
        source.write_text("\n".join(wanted()) + "\n")
        flags = "--generate-hashes --allow-unsafe --strip-extras --no-header --no-annotate --no-emit-index-url"
        flags += " --no-emit-find-links --no-emit-trusted-host --quiet"
        command = [sys.executable, "-m", "piptools", "compile", *flags.split(), "--output-file", "constraints.txt"]
        return subprocess.run([*command, str(source)], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
