"""The exception for mistakes in settings, data or files, and the one for signals."""

import signal


class UserError(Exception):
    """A mistake that the user can correct without reading code.

    Entry points print the two lines and exit with code 2; a notebook shows both.

    Args:
        problem: what is wrong.
        remedy: what to do about it.
    """

    def __init__(self, problem: str, remedy: str):
        super().__init__(f"{problem}\n{remedy}")
        self.problem = problem
        self.remedy = remedy

    def __reduce__(self):  # it is sent from loader processes to the main process
        return UserError, (self.problem, self.remedy)


class Interrupted(SystemExit):
    """A signal has ended the run; the exit code is 128 plus its number, as shells have it."""

    def __init__(self, number: int):
        super().__init__(128 + number)
        self.name = signal.Signals(number).name

    def __str__(self) -> str:
        return f"stopped by {self.name}"
