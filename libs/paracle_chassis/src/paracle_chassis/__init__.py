"""What every Paracle service shares: lifecycle, bus, actor host, event store, telemetry, health."""
