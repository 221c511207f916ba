"""The errors that people see: what went wrong, where, and what to do about it."""


class UserError(Exception):
    """Wrong use or unusable input. The command line prints it without a traceback and exits 2."""


class DamagedError(UserError):
    """A file of ours is not what was written."""
