"""Large jobs: files in, files out, resumable. Only `run.embed_parquet` is public.

The modules, in the order in which a job uses them:

run
    `embed_parquet`: checks its arguments, plans the job, runs it under the target's lock.
plan
    What the job will do: finds inputs (`files`), chooses the copied columns (`schema`), cuts the inputs into
    units, and computes the fingerprint (`units.fingerprint`).
execute
    Embeds the missing units, checks the target, writes the report and ``_SUCCESS``.
in_process, clusters
    Where units are embedded: in this process, or on a Dask cluster.
units
    One unit: reads its input as slabs, embeds them, writes its part and its record.
formats
    Reading Parquet and JSON lines without changing values.
files
    Listing, opening and writing files of any fsspec address.
report
    The figures of a job after it has run.

How parts are written
---------------------
1. A part becomes visible only as a whole. On a local file system it is written under a temporary name in
   ``_nemo_embed/unfinished``, synced and then renamed, which is atomic. On an object store it is one PUT of
   all bytes (``pipe_file``), because closing a half-written fsspec file would publish it.
2. The footer of a part has a key: a hash of the fingerprint, the copied columns, the input's address and
   identity (its size, and its etag or modification time) and the row groups. A part with the right key is
   whole and up to date, whatever step a crash interrupted. If the identity of an input changes while it is
   read, no part is written.
3. A unit has the same file name and the same bytes in every run. If two workers embed it, one part replaces
   the other, and no row appears twice.
4. ``_nemo_embed/manifest.json`` holds plan and fingerprint, ``_nemo_embed/log/*.jsonl`` the records of parts
   (rows, tokens, nulls, truncated, errors, checksum). The log saves reading the parts. Its last records may
   be lost. A part may have several records; none counts as the latest, because clocks of machines differ.
5. ``_SUCCESS`` is removed when a run starts. It is written last, when a listing shows every part and the
   manifest is still the one of this run.
"""
