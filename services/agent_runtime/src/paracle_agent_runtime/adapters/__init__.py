"""The agent runtime's ports in technology."""
