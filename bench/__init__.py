"""The benchmark: what the service does a second, how long a call takes and what it costs, against a no-op behind the same gateway.

``python -m bench`` (``make bench``) runs the short set of ``bench/scenarios``; ``list``, ``run``, ``compare``, ``report`` and
``check`` are its commands. Every scenario ends by verifying its journal: as many claims as granted answers, no oversell.
"""
