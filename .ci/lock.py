"""Pins every dependency of both distributions, with hashes and without any index's address: ``constraints.txt``.

The extra ``peers`` is pinned apart, in ``bench/peers-constraints.txt``: it is for who compares with others only.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PEERS = "peers"
FLAGS = (
    "--generate-hashes --allow-unsafe --strip-extras --no-header --no-annotate --no-emit-index-url "
    "--no-emit-find-links --no-emit-trusted-host --quiet"
)


def wanted() -> tuple[list[str], list[str]]:
    """What the two distributions ask for, extras included, but for each other; and what the extra ``peers`` asks for."""
    server = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    client = tomllib.loads((ROOT / "protos/pyproject.toml").read_text())["project"]
    extras = dict(server["optional-dependencies"])
    peers = extras.pop(PEERS)
    every = server["dependencies"] + client["dependencies"] + [one for extra in extras.values() for one in extra]
    return sorted({one for one in every if not re.match(r"stockade\b", one)}), sorted(peers)


def compile_pins(requirements: list[str], output: str, scratch: Path) -> int:
    """Run pip-compile; its exit code."""
    source = scratch / "requirements.in"
    source.write_text("\n".join(requirements) + "\n")
    command = [sys.executable, "-m", "piptools", "compile", *FLAGS.split(), "--output-file", output, str(source)]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def main() -> int:
    """Pin both; the exit code."""
    everybody, peers = wanted()
    with tempfile.TemporaryDirectory() as made:
        scratch = Path(made)
        # the same versions of what both files name; as constraints without hashes, which pip-compile wants from its sources
        failed = compile_pins(everybody, "constraints.txt", scratch)
        pinned = re.findall(r"^[\w.-]+==[^\s;\\]+", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
        (scratch / "pinned.txt").write_text("\n".join(pinned) + "\n")
        return failed or compile_pins([f"-c {scratch / 'pinned.txt'}", *peers], "bench/peers-constraints.txt", scratch)


if __name__ == "__main__":
    sys.exit(main())
