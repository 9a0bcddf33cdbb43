"""The package's version, stated once: for the build, the package, and the mark that vectors carry."""

__version__ = "0.1.0"
