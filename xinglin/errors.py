"""The one error that a user is meant to read."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can put right: one line saying what is wrong, where, and what to do.

    The command line prints the message without a traceback and exits with code 2.
    """


class OneProcessError(UserError):
    """A `UserError` of one process of several, which must say so itself; others are the first process's to say."""


class Stopped(Exception):
    """The run was told to end, has saved where it is, and says how to go on."""


def one_line(error: BaseException, length: int = 300) -> str:
    """A library's error, however long, as part of one line."""
    return " ".join(str(error).split())[:length] or type(error).__name__


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'X'?` for the closest known name, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
