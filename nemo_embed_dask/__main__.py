"""Run the command line: ``nemo-embed``, or ``python -m nemo_embed_dask``."""

import os
import signal
from typing import NoReturn

from .cli.signals import stopping_signals


def main() -> None:
    """Run the command line; Ctrl-C prints one line even while torch and Dask are imported.

    A Ctrl-C before that, while Python imports pandas, prints a traceback.
    """
    for number in stopping_signals():
        signal.signal(number, _exit)
    from .cli.main import main as command

    command()


def _exit(number: int, _: object) -> NoReturn:
    os.write(2, f"nemo-embed: stopped by {signal.Signals(number).name}\n".encode())
    os._exit(128 + number)


if __name__ == "__main__":
    main()
