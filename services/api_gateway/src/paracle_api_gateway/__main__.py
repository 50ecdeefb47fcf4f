"""`python -m paracle_api_gateway`."""

from __future__ import annotations

import gc
import sys


def main() -> int:
    """Read the settings, then load and run what they are for.

    Loading makes a quarter of a million objects that live for ever. Looking through them for garbage again and again
    would be a tenth of the start, so that waits until all are there, and they are never looked at again.
    """
    gc.disable()
    from paracle_api_gateway.settings import Settings  # noqa: PLC0415  # see above
    from paracle_chassis.settings import load_settings  # noqa: PLC0415

    settings = load_settings(Settings)
    from paracle_api_gateway.server import run  # noqa: PLC0415  # bad settings are told before half a second of imports

    gc.freeze()
    gc.enable()
    return run(settings)


if __name__ == "__main__":
    sys.exit(main())
