"""Agents, tools and workflows: validation, inheritance, revisions, resolution."""
