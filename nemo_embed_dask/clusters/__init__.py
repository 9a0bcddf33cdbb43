"""Dask clusters on this machine: settings, worker processes, and the check of the main script."""
