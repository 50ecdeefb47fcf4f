"""`python -m paracle_agent_runtime`."""

from __future__ import annotations

import gc

if __name__ == "__main__":
    gc.disable()  # nothing of what loads is garbage, and looking was a tenth of the start; `run` enables it again
    from paracle_agent_runtime.app import create_app
    from paracle_chassis.app import run

    run(create_app)
