"""What every Paracle service shares: lifecycle, bus, actor host, event store, telemetry, health."""

from paracle_chassis import _lean

_lean.load("nats")
