"""Tasks: model turns, tools, and the ledger of their effects."""
