"""Chaos: the real processes under load through the real client, while a seed kills, pauses, cuts and garbles them.

Here is the harness alone: ``python -m tests.chaos --minutes 60 --seed 7``, and in small ``tests/e2e/test_chaos.py``. A seed
decides which faults come in which order and what the callers wish; when exactly something strikes is up to the machine.
"""
