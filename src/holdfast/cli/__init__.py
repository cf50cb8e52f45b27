"""The command line `holdfast`: run tasks, look at them, settle what needs a person.

A command's module is imported when the command runs, so that `holdfast --help` answers at once.
"""

from holdfast.cli.entry import main

__all__ = ["main"]
