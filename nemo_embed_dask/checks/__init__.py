"""Checks before a run: verify vectors, estimate the run, and calibrate int8 and uint8 columns."""
