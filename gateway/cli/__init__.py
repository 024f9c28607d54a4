"""``stockade``: the command line. Tables for people, ``--json`` for programs, one exit code a kind of ending.

Client commands speak gRPC like everybody else; server commands go through ``actors.runtime.wiring`` and nothing else of it.
"""

from gateway.cli.main import main

__all__ = ["main"]
