"""The edge: REST and server-sent events over the same messages."""
