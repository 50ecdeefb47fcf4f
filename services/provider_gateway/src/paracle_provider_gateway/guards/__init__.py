"""Guard rails: what looks at the texts of a call, and what becomes of the call then."""
