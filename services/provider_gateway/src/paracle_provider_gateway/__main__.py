"""`python -m paracle_provider_gateway`."""

from paracle_chassis.app import run
from paracle_provider_gateway.app import create_app

if __name__ == "__main__":
    run(create_app)
