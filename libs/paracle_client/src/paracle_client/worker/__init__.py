"""Tools in Python: functions that a process of yours answers calls with. See `Worker`."""

from paracle_client.worker.worker import Worker
from paracle_domain.errors import ToolFailed, ToolUnavailable
from paracle_domain.tool.calls import ToolCall

__all__ = ["ToolCall", "ToolFailed", "ToolUnavailable", "Worker"]
