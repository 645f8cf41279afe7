"""Registers the plugin."""

pytest_plugins = ("fixtures.session.plugin",)
