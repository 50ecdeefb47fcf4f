"""`python -m paracle_observability`."""

from __future__ import annotations

import gc

if __name__ == "__main__":
    gc.disable()  # nothing of what loads is garbage, and looking was a tenth of the start; `run` enables it again
    from paracle_chassis.app import run
    from paracle_observability.app import create_app

    run(create_app)
