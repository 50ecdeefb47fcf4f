"""Guard rails: what is looked at in the calls of an agent's model, and what is done about it."""
