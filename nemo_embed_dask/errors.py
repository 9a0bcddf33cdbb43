"""The one error tree. Knows nothing of the rest of the package.

Every message says what was wrong, where (column, partition, row, file) and what to do about it.
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
    """

    def __init__(self, message: str, rows: tuple[int, ...] = ()) -> None:
        super().__init__(message, rows)
        self.rows = rows

    def __str__(self) -> str:
        return str(self.args[0])


class JobError(EmbedError):
    """A job over files cannot start or go on: its inputs, its target or its cluster."""
