"""The one exception for what a person can put right. It says what is wrong and what to do."""


class UserError(Exception):
    """A mistake in the input, the data or the set-up, with its remedy.

    Entry points print the two lines and exit with code 2; in a notebook both show in the exception's text.
    """

    def __init__(self, problem: str, remedy: str):
        super().__init__(f"{problem}\n{remedy}")
        self.problem = problem
        self.remedy = remedy

    def __reduce__(self):  # it crosses from loader processes to the main one
        return UserError, (self.problem, self.remedy)
