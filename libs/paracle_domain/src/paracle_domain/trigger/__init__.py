"""Triggers: what starts runs by itself, at times or on messages."""
