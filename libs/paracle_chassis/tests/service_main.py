"""A whole service as a process, for the tests of its life."""

import asyncio
import os
import sys

from paracle_chassis.app import Service, run
from paracle_chassis.routes import Routes
from paracle_chassis.settings import ServiceSettings
from paracle_chassis.testing.sample import Echo, Echoed


async def echo(request: Echo, call) -> Echoed:
    await asyncio.sleep(float(os.environ.get("DELAY_S", "0")))
    return Echoed(text=request.text)


def create_app(settings: ServiceSettings) -> Service:
    table = Routes("testing")
    table.rpc(Echo, echo)
    return Service("testing", settings, routes=table)


if __name__ == "__main__":
    run(create_app)
    sys.exit(0)
