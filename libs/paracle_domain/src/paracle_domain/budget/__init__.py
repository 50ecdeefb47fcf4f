"""Budgets: how much money and how many tokens model calls may use, for whom, and until when."""
