"""The command line ``nemo-embed``."""
