"""Read Parquet and JSON lines as Arrow data, and convert between Arrow types, without changing a value."""
