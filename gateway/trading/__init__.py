"""Traffic through the front door: the demo's trading day, the replay of a retailer's file, and the oracle that judges both.

Clients of the service like any other: nothing here imports ``actors``.
"""
