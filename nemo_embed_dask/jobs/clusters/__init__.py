"""A job's units on a Dask cluster: submit them, watch the workers, load the model there."""
