"""A receiver of Stockade's webhooks that runs: ``python webhook_receiver.py PORT SECRET [SECRET]``.

It believes only what is signed, takes every event once however often it comes, keeps the newest availability of each
stock key, and says what it has on GET. Needs the standard library and the package ``stockade``. What a real one does
beside this: TLS in front, and a database, in which an event's id and what it changes are written in one transaction.
"""

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock

from stockade.client.webhooks import BadSignature, verify

BODY_BYTES_MAX = 8 * 1024 * 1024
TAKEN_MAX = 100_000  # ids remembered; one that comes again after so many others changes nothing that counts
SECRETS: list[str] = []

taken: dict[tuple[str, str], None] = {}  # (source, id) of events, oldest first
available: dict[tuple[str, str], dict] = {}  # (warehouse, sku) → the newest value
lock = Lock()


def take(event: dict) -> None:
    """One event, once."""
    identity = (event["source"], event["id"])
    if identity in taken:
        return
    kind, data = event["type"], event["data"]
    if kind in ("stockade.availability.changed.v1", "stockade.availability.current.v1"):
        key = (data["warehouse_id"], data["sku"])
        known = available.get(key)
        # Of one stock key the newest is the one that has seen most; a value may come late, and an old one again.
        if known is None or known["source"] != event["source"] or data["seen_sequence"] >= known["seen_sequence"]:
            available[key] = {**data, "source": event["source"]}
    elif kind == "stockade.feed.restarted.v1":
        available.clear()  # changes were missed; current values follow
    taken[identity] = None
    while len(taken) > TAKEN_MAX:
        del taken[next(iter(taken))]


class Receiver(BaseHTTPRequestHandler):
    """One request each."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """A batch: all of it is taken, or none. 2xx only when it is kept for good."""
        length = int(self.headers.get("content-length") or 0)
        if length > BODY_BYTES_MAX:
            self.answer(413, {"error": "too large"})
            return
        body = self.rfile.read(length)
        try:
            verify(dict(self.headers.items()), body, SECRETS, time.time())
        except BadSignature as error:
            self.answer(401, {"error": str(error)})
            return
        with lock:
            for event in json.loads(body):
                take(event)
        self.answer(200, {})

    def do_GET(self) -> None:
        """What it has."""
        with lock:
            self.answer(200, {"events": len(taken), "available": list(available.values())})

    def answer(self, status: int, content: dict) -> None:
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Quiet."""


def main() -> None:
    """Listen on loopback until interrupted."""
    SECRETS.extend(sys.argv[2:])
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver)
    print(f"listening on 127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
