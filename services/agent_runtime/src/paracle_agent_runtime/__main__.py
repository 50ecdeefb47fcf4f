"""`python -m paracle_agent_runtime`."""

from __future__ import annotations

from paracle_agent_runtime.app import create_app
from paracle_chassis.app import run

if __name__ == "__main__":
    run(create_app)
