"""Fuzzing of every edge that takes bytes: targets are plain functions ``bytes -> None`` in a small registry.

``python -m tests.fuzz [TARGET…] --seconds N --seed K`` runs them for long; ``tests/simulation/test_fuzzing.py`` runs each briefly and
replays the corpus: every input that ever found a bug, with its story.
"""
