"""The benchmark: what the service does per second and how long a call takes, against a no-op behind the same gateway.

``python -m bench`` (``make bench``). It prints what it measured with its conditions and ends by verifying the journal: as many
claims as granted answers, no oversell.
"""
