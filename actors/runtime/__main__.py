"""``python -m actors.runtime``: ``stockade serve`` without the rest of the command line. Settings come from file and
environment.
"""

from __future__ import annotations

import sys

from actors.runtime.settings import SettingsError, load_settings
from actors.runtime.wiring import serve_main

EXIT_USAGE = 2


def main() -> int:
    """Load the settings and serve."""
    try:
        loaded = load_settings()
    except SettingsError as error:
        print(error, file=sys.stderr)
        return EXIT_USAGE
    return serve_main(loaded.settings)


if __name__ == "__main__":
    sys.exit(main())
