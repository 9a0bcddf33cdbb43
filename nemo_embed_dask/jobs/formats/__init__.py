"""Parquet and JSON lines to Arrow tables, and conversions between Arrow types."""
