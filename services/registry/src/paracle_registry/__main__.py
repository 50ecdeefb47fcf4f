"""`python -m paracle_registry`."""

from __future__ import annotations

from paracle_chassis.app import run
from paracle_registry.app import create_app

if __name__ == "__main__":
    run(create_app)
