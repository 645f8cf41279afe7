"""Registers the plugin."""

import sys

from analytic.io import shell
from analytic.io.starting import quiet_start

asked = [word for word in sys.argv[1:] if word.partition("/")[0] == "benchmarks"]
quiet_start(shell.pytest(*(("benchmarks",) if asked else ())))  # until the plugin is configured
pytest_plugins = ("fixtures.plugin.hooks",)
