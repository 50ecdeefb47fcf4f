"""What is said to whoever names what is not there."""

from __future__ import annotations

from paracle_domain.errors import NotFound, quote


def no_run(run_id: str, path: str = "run_id") -> NotFound:
    """There is no such run for whoever asks."""
    return NotFound(f"there is no run {quote(run_id)}; `paracle runs` lists those there are", path=path)


def no_approval(approval_id: str) -> NotFound:
    """There is no such approval for whoever asks."""
    message = f"there is no approval {quote(approval_id)}; `paracle approvals` lists those there are"
    return NotFound(message, path="approval_id")
