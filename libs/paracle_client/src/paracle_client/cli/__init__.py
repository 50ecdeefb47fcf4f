"""The `paracle` command. Each module holds the commands of one subject; `app` finds them when they are asked for."""

from paracle_client.cli.app import main

__all__ = ["main"]
