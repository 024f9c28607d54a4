"""Other ways to reserve durably, doing the work of a scenario in turn with Stockade: ``python -m bench peers``.

``catalog`` names them, ``docs/peers.md`` says how each is configured and what it does less. A peer keeps the same promises
as far as it can: every answer after an fsync, a request id that repeats the first decision, never more than there is. What it
recorded is held against what it answered at the end, and a peer that fails this is shown as unsound.
"""
