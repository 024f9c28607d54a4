"""Several nodes of real processes on one machine, with every link between them led through a proxy of ours, and the faults
of a cluster done to them under load: ``python -m tests.nodes``. No test of CI runs it yet.

The processes run the same parts as a real node's (host, gateway, directory) under a starter of their own instead of Ray.
"""
