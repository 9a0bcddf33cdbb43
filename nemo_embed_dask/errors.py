"""The one error tree. Knows nothing of the rest of the package.

Every message says what was wrong, where (column, partition, row, file) and what to do about it::

    EmbedError
    ├── ConfigError       a parameter cannot work
    ├── ColumnError       a column is missing, of another type, or in the way
    ├── ModelError        a model cannot be found or run
    ├── RowError          some rows cannot be embedded
    └── JobError          a job over files cannot start or go on
        ├── InputError    one input cannot be read: costs that file, the job goes on
        ├── TargetError   the target cannot be written: every unit would fail the same way
        └── ClusterError  the scheduler or its workers cannot do the work

Code branches on these types and their attributes, never on the text of a message.
"""


class EmbedError(Exception):
    """Base of all errors that this package raises on purpose."""


class ConfigError(EmbedError, ValueError):
    """A parameter has a value that cannot work; raised when a stage is built."""


class ColumnError(EmbedError, ValueError):
    """A column is missing, has the wrong type, or is in the way; raised when the graph is built."""


class ModelError(EmbedError):
    """A model cannot be found, or holds something that this package does not know how to run."""


class RowError(EmbedError):
    """Some rows cannot be embedded.

    Parameters
    ----------
    message : str
        What is wrong with them and what to do.
    rows : tuple of int
        Their positions, counted from 0 within the texts handed in.
    reason : str
        The message without the positions, for callers that count rows otherwise.
    """

    def __init__(self, message: str, rows: tuple[int, ...] = (), reason: str = "") -> None:
        super().__init__(message, rows, reason)
        self.rows, self.reason = rows, reason or message

    def __str__(self) -> str:
        return str(self.args[0])


class JobError(EmbedError):
    """A job over files cannot start or go on: its inputs, its target or its cluster.

    Parameters
    ----------
    message : str
        What is wrong, where, and what to do.
    temporary : bool
        Whether another attempt may succeed, as after a reset connection.
    """

    def __init__(self, message: str, temporary: bool = False) -> None:
        super().__init__(message, temporary)
        self.temporary = temporary

    def __str__(self) -> str:
        return str(self.args[0])


class InputError(JobError):
    """One input cannot be read, or has values that the job's columns cannot hold; it costs that file alone."""


class TargetError(JobError):
    """The target cannot be written or listed, so that every unit of the job would fail the same way."""


class ClusterError(JobError):
    """The scheduler cannot be reached, or its workers cannot do the work."""
