"""Registers the plugin."""

pytest_plugins = ("fixtures.plugin.hooks",)
