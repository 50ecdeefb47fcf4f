"""Fixtures that every test may use."""

pytest_plugins = ["paracle_chassis.testing.infra"]
