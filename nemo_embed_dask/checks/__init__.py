"""What a user runs before a job: `verify`, `plan` and `calibrate`."""
