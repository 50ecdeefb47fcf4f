"""What a backend says of a call that it could not finish."""

from __future__ import annotations

from paracle_domain.errors import ParacleError


class OutcomeUnknownError(Exception):
    """The call may have been carried out: it was sent, and no trustworthy answer came back."""

    def __init__(self, error: ParacleError) -> None:
        super().__init__(str(error))
        self.error = error
