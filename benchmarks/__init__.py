"""Benchmarks of the package and its peers. Not installed with the package."""
