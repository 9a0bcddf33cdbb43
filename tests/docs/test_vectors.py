"""The code in docs/vectors runs on vectors of MiniLM, and finds what a search over all vectors in NumPy finds."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from pathlib import Path

import dask.dataframe as dd
import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.sparse.csgraph import connected_components
from sklearn.cluster import KMeans

from nemo_embed_dask import EmbeddingCreatorStage, calibrate, embed, embed_parquet, to_matrix
from nemo_embed_dask.cli.demo import compose

PAGES = Path(__file__).resolve().parents[2] / "docs" / "vectors"
QUERIES = ["A whale sings in the sea.", "How do I bake bread?"]
_BLOCK = re.compile(r'(<!-- skip: next "[^"]*" -->\n)?```python\n(.*?)```', re.DOTALL)


def blocks(page):
    """Return the code of a page, and its code that is not run."""
    found = _BLOCK.findall((PAGES / page).read_text(encoding="utf-8"))
    return [code for skip, code in found if not skip], [code for skip, code in found if skip]


@pytest.fixture
def run(texts, tmp_path, monkeypatch):
    """Run the code of a page in order, in a folder with the texts, and return its names."""
    (tmp_path / "texts").symlink_to(texts)
    monkeypatch.chdir(tmp_path)
    return run_page


def run_page(page):
    names = {"__name__": "page"}
    for code in blocks(page)[0]:
        exec(compile(code, page, "exec"), names)
    return names


@pytest.fixture(scope="module")
def corpus():
    """Texts with near duplicates and nulls, and ids that are not row numbers."""
    frame = compose(36).to_pandas()[["id", "text"]]
    frame["text"] = frame.text.str.split(".").str[0]
    frame["id"] = 1000 - 7 * frame.id
    repeated = frame[:12].assign(id=range(2000, 2012), text=frame.text[:12] + "!")
    frame = pd.concat([frame, repeated], ignore_index=True)
    frame.loc[frame.index % 9 == 4, "text"] = None
    return frame.sample(frac=1, random_state=3, ignore_index=True)


@pytest.fixture(scope="module")
def texts(corpus, tmp_path_factory):
    """A folder with the corpus in files, one of which has only nulls."""
    folder = tmp_path_factory.mktemp("texts")
    schema = pa.schema({"id": pa.int64(), "text": pa.string()})
    nulls = pd.DataFrame({"id": [1, 2], "text": [None, None]})
    for i, part in enumerate([corpus[:24], corpus[24:], nulls]):
        pq.write_table(pa.Table.from_pandas(part, schema, preserve_index=False), folder / f"{i}.parquet")
    return folder


@pytest.fixture(scope="module")
def expected(corpus):
    """The ids and vectors of the rows with a text, without a file between."""
    present = corpus.dropna()
    return present.id.to_numpy(), to_matrix(embed(present).embeddings)


@pytest.fixture(scope="module")
def queries():
    return to_matrix(embed(pd.DataFrame({"text": QUERIES})).embeddings)


def check_nearest(found, ids, closeness, tolerance):
    """Check that the found ids are as close as the closest rows, in order; ids of equal rows may be exchanged."""
    row_of = {id_: row for row, id_ in enumerate(ids.tolist())}
    close = [closeness[row_of[id_]] for id_ in np.asarray(found).tolist()]
    np.testing.assert_allclose(close, np.sort(closeness)[::-1][: len(close)], rtol=0, atol=tolerance)
    assert len(set(np.asarray(found).tolist())) == 3


def same_bits(a, b):
    """How many signs of two sets of vectors are equal."""
    return ((a > 0)[:, None] == (b > 0)[None]).sum(2)


def test_types(expected, run):
    names = run("index.md")
    ids, matrix = expected
    order = np.argsort(ids)
    for folder in ("vectors", "parts"):
        table = pq.read_table(folder, columns=["id", "embeddings"]).sort_by("id").drop_null()
        assert table["id"].to_pylist() == ids[order].tolist()
        np.testing.assert_allclose(to_matrix(table["embeddings"]), matrix[order], atol=1e-6)
    for name in ("from_pandas", "from_objects", "from_dask", "from_polars"):
        np.testing.assert_array_equal(names[name], names["from_arrow"], err_msg=name)
    np.testing.assert_array_equal(
        np.unique(names["from_duckdb"], axis=0), np.unique(names["from_arrow"], axis=0)
    )
    assert names["from_duckdb"].dtype == np.float32
    assert names["rows"] == len(ids)
    page = (PAGES / "index.md").read_text(encoding="utf-8")
    for reader, read_type in READERS.items():
        types = [str(read_type(folder)) for folder in ("vectors", "parts")]
        assert f"| {reader} | `{types[0]}` | `{types[1]}` |" in page


def polars_type(folder, column="embeddings"):
    return str(pl.scan_parquet(f"{folder}/*.parquet").collect_schema()[column])


def duckdb_type(folder, column="embeddings"):
    return duckdb.sql(f"select typeof({column}) from '{folder}/*.parquet' limit 1").fetchall()[0][0]


READERS = {
    "`pq.read_table`": lambda folder: pq.read_table(folder)["embeddings"].type,
    "`pd.read_parquet`": lambda folder: pd.read_parquet(folder).embeddings.dtype,
    '`pd.read_parquet`, `dtype_backend="pyarrow"`': lambda folder: (
        pd.read_parquet(folder, dtype_backend="pyarrow").embeddings.dtype
    ),
    "`dd.read_parquet`": lambda folder: dd.read_parquet(folder).embeddings.compute().dtype,
    '`dd.read_parquet`, `dtype_backend="pyarrow"`': lambda folder: (
        dd.read_parquet(folder, dtype_backend="pyarrow").embeddings.compute().dtype
    ),
    "`pl.scan_parquet`": polars_type,
    "DuckDB": duckdb_type,
}


def test_number_types(corpus, texts, tmp_path):
    page = (PAGES / "index.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"(?m)^\| `(float16|u?int8|u?binary)` \| (\d+) \| `(.*?)` \| `(.*?)` \| `(.*?)` \|$", page
    )
    assert len(rows) == 5
    kinds = [row[0] for row in rows]
    calibration = calibrate(EmbeddingCreatorStage(), corpus.text.dropna().tolist(), tmp_path / "ranges.json")
    stage = EmbeddingCreatorStage(extra_embeddings=[f"{k}_v:{k}" for k in kinds], calibration=calibration)
    embed_parquet(stage, texts / "1.parquet", tmp_path / "out")
    (part,) = (tmp_path / "out").glob("*.parquet")
    for kind, size, *types in rows:
        column = pq.read_table(part)[f"{kind}_v"]
        matrix = to_matrix(column.drop_null())
        assert matrix[0].nbytes == int(size)
        assert [
            str(column.type),
            polars_type(part.parent, f"{kind}_v"),
            duckdb_type(part.parent, f"{kind}_v"),
        ] == types
        objects = pd.read_parquet(part)[f"{kind}_v"]
        np.testing.assert_array_equal(to_matrix(objects.dropna()), matrix.astype(np.float32))


def test_faiss(expected, queries, run):
    names = run("faiss.md")
    ids, matrix = expected
    for row, query in enumerate(queries):
        check_nearest(names["nearest"][row], ids, matrix @ query, 1e-5)
        np.testing.assert_allclose(names["scores"][row], np.sort(matrix @ query)[::-1][:3], atol=1e-5)
        check_nearest(names["nearest_of_codes"][row], ids, matrix @ query, 0.03)
        check_nearest(names["nearest_bits"][row], ids, same_bits(matrix, query[None])[:, 0], 0)
    present = pd.read_parquet("texts").dropna()
    steps, order = to_matrix(names["stage"](present).bytes).astype(int), present.id.to_numpy()
    for row, query in enumerate(to_matrix(names["queries"].bytes).astype(int)):
        check_nearest(names["nearest_bytes"][row], order, -((steps - query) ** 2).sum(1), 0)
    assert names["faiss"].read_index("exact.faiss").ntotal == len(ids) == names["bits"].ntotal
    assert (384 - names["distances"][0]).tolist() == sorted(same_bits(matrix, queries[:1])[:, 0])[-3:][::-1]


def test_lancedb(expected, queries, run):
    names = run("lancedb.md")
    ids, matrix = expected
    check_nearest(names["nearest"]["id"].to_pylist(), ids, matrix @ queries[0], 1e-5)
    check_nearest(names["nearest_halves"]["id"].to_pylist(), ids, matrix @ queries[0], 1e-3)
    check_nearest(names["nearest_bits"]["id"].to_pylist(), ids, same_bits(matrix, queries[:1])[:, 0], 0)
    assert names["table"].count_rows() == len(ids)


def test_duckdb_and_polars(expected, queries, run):
    names = run("duckdb-polars.md")
    ids, matrix = expected
    check_nearest([row[0] for row in names["nearest"]], ids, matrix @ queries[0], 1e-5)
    check_nearest(names["best"], ids, matrix @ queries[0], 1e-5)
    check_nearest(names["top"]["id"].to_list(), ids, matrix @ queries[0], 1e-5)
    check_nearest([row[0] for row in names["nearest_bits"]], ids, same_bits(matrix, queries[:1])[:, 0], 0)
    length = pd.read_parquet("texts").set_index("id").text.str.len()
    near = {
        (min(a, b), max(a, b))
        for a, b in ids[np.argwhere(matrix @ matrix.T > 0.95)].tolist()
        if a != b and abs(length[a] - length[b]) <= 2
    }
    assert {pair[:2] for pair in names["pairs"]} == near
    assert len(near) >= 8


def test_scikit_learn(expected, queries, run):
    names = run("scikit-learn.md")
    ids, matrix = expected
    check_nearest(names["nearest"][0], ids, matrix @ queries[0], 1e-5)
    centres = names["clusters"].cluster_centers_
    found = pd.read_parquet("clusters").set_index("id").cluster
    distances = ((matrix[:, None] - centres) ** 2).sum(2)
    np.testing.assert_allclose(distances[range(len(ids)), found[ids]], distances.min(1), atol=1e-5)
    assert len(found) == len(ids)
    reduced = to_matrix(names["first"].embeddings)
    assert reduced.shape == (len(names["first"]), 8)
    row = names["first"].index[0], names["first"].id.iloc[0]
    pca = names["pca"]
    projected = (matrix[ids == row[1]] - pca.mean_) @ pca.components_.T
    np.testing.assert_allclose(reduced[:1], projected, atol=1e-4)


def test_semantic_deduplication(expected, run):
    names = run("semantic-deduplication.md")
    ids, matrix = expected
    removed = set(names["removed"].tolist())
    kept = np.array([id_ not in removed for id_ in ids.tolist()])
    similar = matrix @ matrix.T >= 0.95
    np.fill_diagonal(similar, val=False)
    # Each removed row has a near duplicate, and each group of near duplicates keeps a row.
    assert similar[~kept].any(axis=1).all()
    groups = connected_components(similar)[1]
    assert set(groups) == set(groups[kept])
    assert len(removed) >= 8
    # Rows that are kept although they are similar are in different clusters.
    fitted = KMeans(n_clusters=4, n_init=1, random_state=42).fit(to_matrix(names["frame"].embeddings))
    cluster = dict(zip(names["frame"].id.tolist(), fitted.labels_, strict=True))
    for a, b in ids[np.argwhere(similar & kept[:, None] & kept)].tolist():
        assert cluster[a] != cluster[b]
    # The corpus and its file of nulls, without the rows that were removed.
    left = pd.read_parquet("unique.parquet").id
    assert sorted(left) == sorted(set(pd.read_parquet("texts").id) - removed)
    for folder in CURATOR_INPUTS:
        check_footers(sorted(Path(folder).glob("*.parquet")), ids)
    check_curators_reading()


CURATOR_INPUTS = ("curator_input", "curator_input_of_job")


def check_footers(files, ids):
    """Check what NeMo Curator asks of its files: an id, and as many floats as rows x dimensions, without nulls."""
    footers = [pq.ParquetFile(path).metadata for path in files]
    groups = [footer.row_group(i) for footer in footers for i in range(footer.num_row_groups)]
    assert {group.column(i).path_in_schema for group in groups for i in range(group.num_columns)} == {
        "id",
        "embeddings.list.element",
    }
    vectors = [group.column(1) for group in groups]
    assert {column.physical_type for column in vectors} == {"FLOAT"}
    assert sum(column.num_values for column in vectors) == 384 * len(ids)
    assert sum(footer.num_rows for footer in footers) == len(ids)
    assert sorted(pq.read_table(files[0].parent)["id"].to_pylist()) == sorted(ids.tolist())


def check_curators_reading():
    """Run Curator's own count of values, and compare the page's call with its signature, if its source is here.

    ``pip install --no-deps nemo-curator loguru`` is enough. Importing its package would need cuDF and Ray.
    """
    package = importlib.util.find_spec("nemo_curator")
    if package is None or importlib.util.find_spec("loguru") is None:
        return
    semantic = Path(package.origin).parent / "stages/deduplication/semantic"
    spec = importlib.util.spec_from_file_location("curator_utils", semantic / "utils.py")
    utils = sys.modules["curator_utils"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(utils)
    for folder in CURATOR_INPUTS:
        files = [str(path) for path in Path(folder).glob("*.parquet")]
        infos = utils.read_parquet_file_info(
            files,
            retained_columns=["id"],
            embedding_column="embeddings",
            storage_options={"auto_mkdir": False},  # with options it reads by fsspec, without by cuDF
        )
        assert all(info.embedding_elements == 384 * info.num_rows for info in infos)
    (code,) = blocks("semantic-deduplication.md")[1]
    tree = ast.parse((semantic / "workflow.py").read_text(encoding="utf-8"))
    (init,) = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "__init__"]
    calls = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call) and node.keywords]
    assert {keyword.arg for call in calls for keyword in call.keywords} <= {arg.arg for arg in init.args.args}


def test_code_that_is_not_run_compiles():
    codes = [code for page in PAGES.glob("*.md") for code in blocks(page.name)[1]]
    for code in codes:
        compile(code, "page", "exec")
    assert len(codes) == 3
