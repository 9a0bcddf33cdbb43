"""The exceptions of this package.

Every message says what was wrong, where (column, partition, row, file) and what to do::

    EmbedError
    ├── ConfigError       a parameter has a value that cannot work
    ├── ColumnError       a column is missing, has the wrong type, or its name is taken
    ├── ModelError        a model cannot be found or run
    ├── RowError          some rows cannot be embedded
    └── JobError          a job over files cannot start or continue
        ├── InputError    one input cannot be read; the job continues with the others
        ├── TargetError   the target cannot be written: every unit would fail the same way
        └── ClusterError  the scheduler or its workers cannot do the work

Code branches on these types and their attributes, never on the text of a message.
"""


def type_and_message(error: BaseException, length: int = 200) -> str:
    """Return an error's type and the first line of its message, to quote it in a message of this package."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:length]


class EmbedError(Exception):
    """Base class of all exceptions of this package."""


class ConfigError(EmbedError, ValueError):
    """A parameter has a value that cannot work."""


class ColumnError(EmbedError, ValueError):
    """A column is missing, has the wrong type, or its name is taken."""


class ModelError(EmbedError, RuntimeError):
    """A model cannot be found, or has a part that this package cannot run.

    It is a RuntimeError too, as what Curator raises for a model that cannot be downloaded.
    """


# What to do about a row that cannot be embedded.
ROW_ADVICE = "Fix or drop the row, or choose null vectors for such rows: on_error='null', or --on-error null"


class RowError(EmbedError):
    """Some rows cannot be embedded.

    Parameters
    ----------
    message : str
        What is wrong with these rows and what to do.
    rows : tuple of int
        Their positions in the texts that were passed, counted from 0.
    reason : str
        The message without the positions, for callers that count rows differently.
    """

    def __init__(self, message: str, rows: tuple[int, ...] = (), reason: str = "") -> None:
        super().__init__(message, rows, reason)
        self.rows, self.reason = rows, reason or message

    def __str__(self) -> str:
        return str(self.args[0])


class JobError(EmbedError):
    """A job over files cannot start or continue, because of its inputs, its target or its cluster.

    Parameters
    ----------
    message : str
        What is wrong, where, and what to do.
    temporary : bool
        Whether another attempt may succeed, for example after a connection reset.
    """

    def __init__(self, message: str, temporary: bool = False) -> None:
        super().__init__(message, temporary)
        self.temporary = temporary

    def __str__(self) -> str:
        return str(self.args[0])


class InputError(JobError):
    """One input cannot be read, or has values that the job's columns cannot hold; the job continues."""


class TargetError(JobError):
    """The target cannot be written or listed; every unit of the job would fail the same way."""


class ClusterError(JobError):
    """The scheduler cannot be reached, or its workers cannot do the work."""
