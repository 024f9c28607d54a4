"""Compares the contract with the last release's (tag ``v*``) by ``buf breaking``. Says so when there is no release yet."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """0 when nothing breaks, or nothing was released; 1 when something breaks; 2 when it could not be compared."""
    described = subprocess.run(
        ["git", "describe", "--tags", "--match", "v*", "--abbrev=0"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if described.returncode != 0:
        if "No names found" in described.stderr or "No tags" in described.stderr or "not a git" in described.stderr:
            print("contract: no release tag yet, nothing to compare with")
            return 0
        print(described.stderr.strip(), file=sys.stderr)
        return 2
    tag = described.stdout.strip()
    compared = subprocess.run(
        ["buf", "breaking", "protos", "--against", f".git#tag={tag},subdir=protos"], cwd=ROOT, check=False
    )
    if compared.returncode == 0:
        print(f"contract: nothing breaks what {tag} promised")
    return 1 if compared.returncode else 0


if __name__ == "__main__":
    sys.exit(main())
