"""Fixtures and settings that every test may use."""

from hypothesis import settings

pytest_plugins = ["paracle_chassis.testing.infra", "paracle_chassis.testing.hiccups"]

# No test asserts how long something takes: what is slow on a busy machine is not wrong.
settings.register_profile("paracle", deadline=None)
settings.load_profile("paracle")
