"""`python -m futago`: the same as the command `futago`."""

from futago.cli.main import run

run()
