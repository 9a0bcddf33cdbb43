"""One unit of a job: read it, embed it, write its part, and record what was done."""
