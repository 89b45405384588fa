"""The `penstock` command. `main` is the console script's entry point."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    # Imported here so that importing the package costs and does nothing.
    from gateway.cli.app import app

    app()
