"""Runs: decides what each run does next, durably."""
