"""The one error that a user sees: what happened, what to do, and the exit code that says so.

Every room may raise it; only cli/ turns it into a line on stderr and an exit status.
"""

OK, FAILURE, USAGE, NO_DAEMON, NOT_READY, TIMEOUT, REFUSED, VERSION = range(8)
TEMPORARY, BAD_CONFIG = 75, 78


class TapestryError(Exception):
    """An expected failure, worded for the person who runs the program.

    ``message`` is one line: what happened and what to do. ``exit_code`` is one of the
    constants of this module.
    """

    def __init__(self, message: str, exit_code: int = FAILURE) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code
