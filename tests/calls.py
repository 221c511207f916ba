"""Commands of the program, called in this process."""

from typer.testing import CliRunner, Result

import cli


def call(*arguments: object) -> Result:
    """Run a command of the program in this process."""
    return CliRunner().invoke(cli.app, list(map(str, arguments)))
