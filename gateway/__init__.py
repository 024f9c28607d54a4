"""The gateway: the gRPC edge of Stockade. Validates, translates, batches, fans out, answers; holds no truth.

``config`` settings and bounds · ``core`` sans-IO routing, batching, merging and retry · ``links`` the asyncio shell
around it · ``validation`` every bad field at once · ``translate`` messages ↔ items · ``errors`` the error table ·
``servicers`` the methods · ``server`` start and stop. It decides nothing about stock: that is ``actors.domain``,
reached over frames.
"""
