"""The address of a PostgreSQL journal as people write it: whether it can be one, and how it is shown.

Owns that a password never leaves it: ``shown`` for tables and logs, ``without_password`` for messages of others that
may quote it. It opens nothing and knows no driver.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, unquote, urlsplit

__all__ = ["HIDDEN", "SCHEMES", "problem", "shown", "without_password"]

HIDDEN = "***"
SCHEMES = ("postgresql", "postgres")  # libpq takes both
SECRET_PARAMETERS = frozenset(
    {"password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key"}
)
UNREADABLE = "a database URL that cannot be read (not shown: it may hold a password)"
PIECE_CHARACTERS_MIN = 3
ESCAPES = "%40 for @, %3A for :, %2F for /, %3F for ? and %23 for # in a password"
EXAMPLE = '"postgresql://USER:PASSWORD@HOST:5432/DATABASE"'


def problem(url: str) -> str:
    """What keeps ``url`` from being a journal's address, without quoting it; empty when it can be one."""
    if not url.isprintable() or " " in url:
        return f"has spaces or control characters; write {EXAMPLE}, other characters of a password as %XX"
    try:
        parts = urlsplit(url)
        ports = [
            urlsplit(f"//{place}").port for place in parts.netloc.rpartition("@")[2].split(",")
        ]  # libpq: host,host
    except ValueError:
        return f"its host or port cannot be read; write {EXAMPLE}, with {ESCAPES}"
    if parts.scheme not in SCHEMES:
        return f"is no postgresql:// URL; write {EXAMPLE}, or leave it out for a SQLite file in the data directory"
    if 0 in ports:
        return "port 0 is nobody's"
    if "#" in url or "@" in parts.path + parts.query:
        return f"has a # in it, or an @ behind the host; write {EXAMPLE}, with {ESCAPES}"
    if not parts.path.strip("/") and "dbname" not in dict(parse_qsl(parts.query)):
        return f"names no database; write {EXAMPLE}"
    return ""


def shown(url: str) -> str:
    """``url`` with its secrets replaced; what cannot be read is not shown at all."""
    if problem(url):
        return UNREADABLE
    parts = urlsplit(url)
    login, at, place = parts.netloc.rpartition("@")
    user, colon, _ = login.partition(":")
    pairs = [(name, value) for name, _, value in (pair.partition("=") for pair in parts.query.split("&"))]
    query = "&".join(f"{name}={_shown_value(unquote(name), value)}" for name, value in pairs if name)
    netloc = f"{user}{colon and f':{HIDDEN}'}{at}{place}"
    return f"{parts.scheme}://{netloc}{parts.path}{f'?{query}' if query else ''}"


def _shown_value(name: str, value: str) -> str:
    return HIDDEN if name.lower() in SECRET_PARAMETERS else value


def without_password(text: str, *urls: str) -> str:
    """``text`` of somebody else (a driver's error, say) without the secrets of ``urls``, spelled as in the URL or not."""
    for url in urls:
        text = text.replace(url, shown(url))
        for secret in sorted(_secrets(url), key=len, reverse=True):
            text = text.replace(secret, HIDDEN)
    return text


def _secrets(url: str) -> set[str]:
    """Every secret part of a URL, as written and decoded; of one that cannot be read, all pieces that may be of one."""
    if problem(url):
        return {
            piece
            for piece in re.split(r"[\s/:@?#&=]+", url)
            if len(piece) >= PIECE_CHARACTERS_MIN and piece not in SCHEMES
        }
    parts = urlsplit(url)
    pairs = [(name, value) for name, _, value in (pair.partition("=") for pair in parts.query.split("&"))]
    found = [parts.netloc.rpartition("@")[0].partition(":")[2]]
    found += [value for name, value in pairs if unquote(name).lower() in SECRET_PARAMETERS]
    return {spelling for one in found if one for spelling in (one, unquote(one))}
