"""``python -m nemo_embed_dask``: the command line."""

from .cli import main

if __name__ == "__main__":
    main()
