"""The errors that people see: what went wrong, where, and what to do about it."""


class UserError(Exception):
    """Wrong use or unusable input. The command line prints it without a traceback and exits 2."""


class DamagedError(UserError):
    """A file of ours is not what was written."""


class AbsentError(UserError):
    """A file is not there."""


class WholeFilesOnlyError(UserError):
    """A host or store does not serve ranges of bytes."""


def install(extra: str) -> str:
    """Return how an extra is installed: from a clone, since no package index has Nurie."""
    return f"pip install -e '.[{extra}]' in the clone of Nurie"
