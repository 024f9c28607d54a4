"""One settings file that holds every kind of secret, each a word of its own that nothing else contains, and a search for them."""

from __future__ import annotations

import re
from pathlib import Path

MARK = "hush"
DATABASE = f"postgresql://stockade:{MARK}-database%40@127.0.0.1:9/stock?sslpassword={MARK}-key-password"
SETTINGS = f"""
cluster_token = "{MARK}-cluster-token"
{{more}}

[[credentials]]
principal = "shop"
token = "{MARK}-token"
channels = ["web"]

[[credentials]]
principal = "operator"
token_file = "{{folder}}/token"
operator = true

[webhooks.erp]
url = "https://127.0.0.1:9/hook?key={MARK}-query"
allowed_networks = ["127.0.0.0/8"]
headers = {{{{ authorization = "Bearer {MARK}-header" }}}}

[[webhooks.erp.secrets]]
id = "k1"
secret = "{MARK}-webhook-secret-of-32-characters"

[[webhooks.erp.secrets]]
id = "k2"
secret_file = "{{folder}}/webhook-secret"
"""


def write_settings(folder: Path, more: str = "") -> Path:
    """``stockade.toml`` and the files it names. ``more``: top-level settings, ``[journal]`` among them."""
    (folder / "token").write_text(f"{MARK}-token-in-a-file\n", encoding="utf-8")
    (folder / "webhook-secret").write_text(f"{MARK}-webhook-secret-in-a-file-of-32\n", encoding="utf-8")
    path = folder / "stockade.toml"
    path.write_text(SETTINGS.format(folder=folder, more=more), encoding="utf-8")
    return path


def secrets_in(text: str) -> list[str]:
    """What of them stands in a text, also when a table's cell broke it over lines."""
    joined = re.sub(r"[\s│┃|]+", "", text)
    return sorted(set(re.findall(rf"{MARK}[\w-]*", text)) | set(re.findall(rf"{MARK}-[\w-]{{0,12}}", joined)))


def secrets_below(folder: Path, *but: str) -> dict[str, list[str]]:
    """Files below a folder that hold any of them, by path."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.name not in but:
            held = secrets_in(path.read_bytes().decode("latin-1"))
            if held:
                found[str(path.relative_to(folder))] = held
    return found
