"""The REST API as data: each function is one call, with its path and the message that answers it.

Both clients have them as their methods (`aio`, `client`): what a call takes and does is said here alone.
"""

from paracle_client.calls import manifests, models, money, people, pools, runs, triggers

__all__ = ["manifests", "models", "money", "people", "pools", "runs", "triggers"]
