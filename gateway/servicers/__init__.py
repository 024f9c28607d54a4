"""The methods of ``stockade.v1``, one class a service; each method is ``async (request, Rpc) -> response`` or raises
``CallFailed``.

They check and translate (``gateway.translate``), ask the shards (``Desk``), and say what came back. They decide
nothing.
"""
