"""The embedded stack: NATS, PostgreSQL and the six services on this machine, each its own process.

stack = Stack(Path(".paracle"))
stack.up()        # returns once everything answers; leaves what runs already alone
stack.url         # where the REST API is
stack.down()
"""

from paracle_client.stack.ending import leave_when_told
from paracle_client.stack.services import SERVICES, Replica, Service
from paracle_client.stack.stack import Stack, StackFailed
from paracle_client.stack.state import Member, Standing, State

__all__ = ["SERVICES", "Member", "Replica", "Service", "Stack", "StackFailed", "Standing", "State", "leave_when_told"]
