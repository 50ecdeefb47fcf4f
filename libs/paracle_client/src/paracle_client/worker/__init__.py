"""Tools and guards in Python: functions that a process of yours answers calls with. See `Worker`."""

from paracle_client.worker.worker import Worker
from paracle_domain.errors import ToolFailed, ToolUnavailable
from paracle_domain.guard.messages import GuardAnswer, GuardQuestion, Passage
from paracle_domain.tool.calls import ToolCall

__all__ = ["GuardAnswer", "GuardQuestion", "Passage", "ToolCall", "ToolFailed", "ToolUnavailable", "Worker"]
