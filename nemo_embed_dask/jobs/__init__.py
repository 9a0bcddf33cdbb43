"""Large jobs: files in, files out, resumable. `embed_parquet` and nothing else is public.

The way of a job, one module each::

    listing      which files a source names
    folders      what file systems say of a folder's entries
    found        a file that a source names, and its folders' columns
    addresses    sources as they are given -> one spelling each
    inputs       sources -> files -> units of work, each with a deterministic name
    hive         the columns in folders' names
    unpacking    compressed files, completely or with an error
    opening      an input opened and unpacked, if it is still the one that was planned with
    survey       what each input holds: row groups, and columns with their types
    widening     the narrowest type that holds the values of two
    casting      values converted to such a type
    ranges       the least and largest values of columns, where a type depends on them
    common       one schema over those of all files
    carried      the columns that a job carries over
    plan         what a job will do: all of the above in order
    fingerprint  everything that decides a vector, and how two of them differ
    manifest     what the target says of itself: plan and fingerprint
    records      what is known of a part: its footer and the log
    parts        which parts are whole
    work         one unit, on a worker: read, embed, commit
    readers      a unit's rows as Arrow tables of bounded size
    parquet      Parquet files read so that no value is changed
    pieces       how many rows of a Parquet file to read at once
    pages        what the pages of a Parquet column take when they are decoded
    jsonlines    lines of JSON as Arrow columns
    fitting      a file's columns in the types of the job
    columns      those rows with the columns that the stage makes of them
    writer       tables into one Parquet file
    serial       units done in this process
    cluster      units done on a Dask cluster: bounded in flight, retried, quarantined
    retries      which units are tried again, and when a job gives up on its stores
    watch        what a job on a cluster waits for: workers that are gone, paused or slow
    preload      the model on every worker before work starts
    plugin       what a worker is told of a job, and does before its first unit: load that model, or leave
    versions     whether workers have the client's version of this package
    held         workers of an adaptive cluster, kept while they load the model
    seen         whether workers see the client's target and inputs
    run          `embed_parquet`: all of these in order
    progress     what is seen while it runs
    report       what is understood after
    storage      the only module that writes: local file systems and object stores
    streams      its open files
    identity     what tells two versions of a file apart
    locking      its lock, where the file system has locks
    file_errors  what errors of file systems mean, and whether another attempt may help

The commit protocol
-------------------
1. A part becomes visible only whole: on a local file system under a temporary name in
   ``_nemo_embed/unfinished``, synced, then one atomic rename; elsewhere one PUT of all bytes (``pipe_file``;
   closing a half-written fsspec file would publish it).
2. A part says in its own footer which unit it is of: a key made of the fingerprint, the input's address
   and identity (size, and etag or mtime), its row groups and the columns. So no crash, between any two
   steps, can leave a part that passes for another: what has the right key is whole and right. An input
   whose identity is another before or after it is read gives no part.
3. The same unit has the same name and the same bytes on every run, so that doing it twice replaces, never
   doubles.
4. ``_nemo_embed/manifest.json`` holds plan and fingerprint; ``_nemo_embed/log/*.jsonl`` records of parts
   (rows, tokens, nulls, truncated, errors, checksum). The log saves reading parts, and may lose its tail; of
   several records of a part any may be the one, for clocks differ.
5. ``_SUCCESS`` goes first when a run starts and comes last, when every part has been seen in a listing and
   the manifest is still this run's.
"""

from .run import embed_parquet

__all__ = ["embed_parquet"]
