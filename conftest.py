"""Registers the plugin."""

from analytic.io import shell
from analytic.io.starting import quiet_start

quiet_start(shell.pytest("benchmarks"))  # until the plugin is configured
pytest_plugins = ("fixtures.plugin.hooks",)
