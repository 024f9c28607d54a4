"""Pins every dependency of both distributions, with hashes and without any index's address: ``constraints.txt``.

The extra ``peers`` is pinned apart, in ``bench/peers-constraints.txt``: it is for who compares with others only. What runs a
service, without any extra, is pinned once more in ``deploy/constraints.txt``: it is all that an image needs.
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


def wanted() -> tuple[list[str], list[str], list[str]]:
    """What the two distributions ask for, but for each other: with extras; without any; and what the extra ``peers`` asks for."""
    server = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    client = tomllib.loads((ROOT / "protos/pyproject.toml").read_text())["project"]
    extras = dict(server["optional-dependencies"])
    peers = extras.pop(PEERS)
    serving = {one for one in server["dependencies"] + client["dependencies"] if not re.match(r"stockade\b", one)}
    every = serving | {one for extra in extras.values() for one in extra}
    return sorted(every), sorted(serving), sorted(peers)


def compile_pins(requirements: list[str], output: str, scratch: Path) -> int:
    """Run pip-compile; its exit code."""
    source = scratch / "requirements.in"
    source.write_text("\n".join(requirements) + "\n")
    command = [sys.executable, "-m", "piptools", "compile", *FLAGS.split(), "--output-file", output, str(source)]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def main() -> int:
    """Pin all three; the exit code."""
    everybody, serving, peers = wanted()
    with tempfile.TemporaryDirectory() as made:
        scratch = Path(made)
        # the same versions of what several files name; as constraints without hashes, which pip-compile wants from its sources
        failed = compile_pins(everybody, "constraints.txt", scratch)
        pinned = re.findall(r"^[\w.-]+==[^\s;\\]+", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
        (scratch / "pinned.txt").write_text("\n".join(pinned) + "\n")
        alike = f"-c {scratch / 'pinned.txt'}"
        failed = failed or compile_pins([alike, *serving], "deploy/constraints.txt", scratch)
        return failed or compile_pins([alike, *peers], "bench/peers-constraints.txt", scratch)


if __name__ == "__main__":
    sys.exit(main())
