"""Webhooks: changes out to consumers that cannot hold a stream, as CloudEvents over HTTPS POST.

A deliverer is a consumer like any other: it reads the change feed by the client, posts, and acknowledges what was
accepted or given up. It holds no truth: what it had not acknowledged is read and sent again after a restart.
"""
