"""`python -m paracle_api_gateway`."""

from __future__ import annotations

import sys

from paracle_api_gateway.settings import Settings
from paracle_chassis.settings import load_settings


def main() -> int:
    """Read the settings, then load and run what they are for."""
    settings = load_settings(Settings)
    from paracle_api_gateway.server import run  # noqa: PLC0415  # bad settings are told before half a second of imports

    return run(settings)


if __name__ == "__main__":
    sys.exit(main())
