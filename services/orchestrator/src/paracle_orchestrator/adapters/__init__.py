"""The orchestrator's ports in technology."""
