"""All targets: importing this module fills the registry."""

from __future__ import annotations

from tests.fuzz import target_client, target_files, target_frames, target_journal, target_rpc
from tests.fuzz.registry import TARGETS

__all__ = ["TARGETS", "target_client", "target_files", "target_frames", "target_journal", "target_rpc"]
