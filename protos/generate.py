"""Makes the Python beside ``stockade/v1/*.proto``: messages, stubs and their types. ``--check`` only says what differs.

Plain and offline: grpcio-tools and mypy-protobuf at the pinned versions, nothing else. Run by ``make proto`` and ``make check``.
"""

from __future__ import annotations

import argparse
import filecmp
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGE = Path("stockade/v1")
GENERATED = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi")


def generate(into: Path) -> None:
    """Run protoc for every proto of the package; SystemExit when it fails."""
    from grpc_tools import protoc

    scripts = Path(sysconfig.get_path("scripts"))
    protos = sorted(str(path.relative_to(HERE)) for path in (HERE / PACKAGE).glob("*.proto"))
    includes = [f"-I{HERE}", f"-I{HERE / 'third_party'}", f"-I{Path(protoc.__file__).parent / '_proto'}"]
    status = protoc.main(
        [
            "protoc",
            *includes,
            f"--plugin=protoc-gen-mypy={scripts / 'protoc-gen-mypy'}",
            f"--plugin=protoc-gen-mypy_grpc={scripts / 'protoc-gen-mypy_grpc'}",
            f"--python_out={into}",
            f"--grpc_python_out={into}",
            f"--mypy_out=quiet:{into}",
            f"--mypy_grpc_out=quiet:{into}",
            *protos,
        ]
    )
    if status != 0:
        raise SystemExit(f"protoc failed with status {status}")


def generated_files(root: Path) -> dict[str, Path]:
    """Generated files below ``root``, by name."""
    return {path.name: path for pattern in GENERATED for path in (root / PACKAGE).glob(pattern)}


def main() -> int:
    """Generate, or with ``--check`` compare; 1 when something differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, say what differs")
    check: bool = parser.parse_args().check
    with tempfile.TemporaryDirectory() as scratch:
        into = Path(scratch)
        (into / PACKAGE).mkdir(parents=True)
        generate(into)
        fresh, present = generated_files(into), generated_files(HERE)
        differing = sorted(
            name
            for name in fresh.keys() | present.keys()
            if name not in fresh or name not in present or not filecmp.cmp(fresh[name], present[name], shallow=False)
        )
        if check:
            for name in differing:
                print(f"{PACKAGE / name} does not match its proto: run `make proto` and commit", file=sys.stderr)
            return 1 if differing else 0
        for name in present.keys() - fresh.keys():
            present[name].unlink()
        for name, path in fresh.items():
            shutil.copy(path, HERE / PACKAGE / name)
        print(f"{len(fresh)} files made, {len(differing)} changed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
