"""Pools that are read part by part are ranked as pools in memory are."""

from __future__ import annotations

import gzip
import itertools

import pytest
import torch

from pyg_nas_np import ConvNPPredictor
from pyg_nas_np.predictors import RidgePredictor
from pyg_nas_np.predictors.streaming import (
    PoolRanking,
    PredictedRows,
    plain_columns,
    predict_rows,
    rank_pool,
    spread_rows,
    stream_predictions,
)
from pyg_nas_np.spaces import Integer, NASBench201Space, ParameterSpace
from pyg_nas_np.utils import DataFileError, InvalidArchitectureError, InvalidSpaceError

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

SPACE = ParameterSpace(depth=Integer(1, 40), width=[16, 32, 64], act=["relu", "gelu"], pre=[False, True])


def records(n, seed=0):
    drawn = SPACE.sample(n, torch.Generator().manual_seed(seed), replace=True)
    return [arch.to_dict() for arch in drawn]


def labels(rows):
    return [0.02 * row["depth"] + 0.002 * row["width"] + 0.1 * (row["act"] == "gelu") for row in rows]


@pytest.fixture(scope="module")
def predictor():
    rows = records(20, seed=1)
    return ConvNPPredictor(maximize=True).fit(rows, labels(rows))


@pytest.fixture(scope="module")
def pool():
    rows = records(500)
    return [{**row, "name": f"net{i}", "ms": None if i % 7 == 0 else 0.5 * i} for i, row in enumerate(rows)]


def write(pool, folder, form):
    table = pyarrow.Table.from_pylist(pool)
    if form == "folder":
        (folder / "pool").mkdir()
        parquet.write_table(table.slice(0, 170), folder / "pool" / "a.parquet", row_group_size=60)
        parquet.write_table(table.slice(170), folder / "pool" / "b.parquet")
        return folder / "pool"
    if form == "parquet":
        parquet.write_table(table, folder / "pool.parquet", row_group_size=150)
        return folder / "pool.parquet"
    csv = pytest.importorskip("pyarrow.csv")
    csv.write_csv(table, folder / "pool.csv")
    text = (folder / "pool.csv").read_text()
    if form == "gzip":
        (folder / "pool.csv").write_bytes(gzip.compress(text.encode()))
    elif form == "spreadsheet":
        head, _, rest = text.replace('"', "").replace(",", " ; ").partition("\n")
        (folder / "pool.csv").write_bytes(f"\n{head}\r\n{rest}".encode("utf-16"))
    elif form == "prefix":
        (folder / "pool.csv").write_text(text.replace('"depth"', '"params_depth"').replace('"act"', '"params_act"'))
    return folder / "pool.csv"


@pytest.mark.parametrize("form", ["parquet", "folder", "csv", "gzip", "spreadsheet", "prefix"])
def test_a_pool_in_parts_is_a_pool_in_memory(predictor, pool, tmp_path, form):
    path = write(pool, tmp_path, form)
    own = [{name: row[name] for name in SPACE.parameters} for row in pool]
    mean, std = predictor.predict(own, return_std=True)
    parts = list(stream_predictions(predictor, path, batch_rows=64))
    assert all(part.rows.num_rows <= 64 for part in parts)
    torch.testing.assert_close(torch.cat([part.mean for part in parts]), mean, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(torch.cat([part.std for part in parts]), std, rtol=1e-4, atol=1e-6)
    ranking = rank_pool(predictor, path, 10, batch_rows=64)
    assert len(ranking) == 500
    best = ranking.best.to_pylist()
    assert [row["predicted"] for row in best] == pytest.approx(
        mean.sort(descending=True).values[:10].tolist(), rel=1e-4
    )
    place = {row["name"]: i for i, row in enumerate(pool)}
    for row in best:
        assert float(mean[place[row["name"]]]) == pytest.approx(row["predicted"], rel=1e-4)
        assert row["std"] > 0
    assert set(ranking.best.column_names) >= {"name", "ms", "width", "predicted", "std"}
    assert ranking.distribution.quantile(0.5) == pytest.approx(float(mean.quantile(0.5)), abs=0.01)


def predicted(values, first=0):
    rows = pyarrow.record_batch({"row": list(range(first, first + len(values)))})
    mean = torch.tensor(values, dtype=torch.float64)
    return PredictedRows(rows, mean, torch.ones_like(mean), first)


def test_of_equal_predictions_the_first_stay():
    for maximize in (True, False):
        sign = 1.0 if maximize else -1.0
        ranking = PoolRanking(3, maximize)
        ranking.update(predicted([sign * v for v in (1.0, 5.0, 3.0, 3.0)]))
        ranking.update(predicted([sign * v for v in (3.0, 5.0)], 4))
        assert ranking.best.column("row").to_pylist() == [1, 5, 2]
        assert repr(ranking) == "PoolRanking(3 of 6)"
        ranking.update(predicted([], 6))
    with pytest.raises(ValueError, match="k must be at least 1"):
        PoolRanking(0)


def test_rankings_of_parts_are_merged():
    values = torch.randn(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64).tolist()
    whole, left, right = PoolRanking(7), PoolRanking(7), PoolRanking(7)
    whole.update(predicted(values))
    left.update(predicted(values[:3]))
    right.update(predicted(values[3:], 3))
    left.merge(right)
    left.merge(PoolRanking(7))
    assert left.rows.tolist() == whole.rows.tolist() == whole.best.column("row").to_pylist()
    assert left.best.to_pylist() == whole.best.to_pylist()
    assert left.distribution.quantile(0.3) == whole.distribution.quantile(0.3)


def test_smaller_may_be_better(pool, tmp_path):
    rows = records(20, seed=1)
    predictor = RidgePredictor(maximize=False).fit(rows, labels(rows))
    ranking = rank_pool(predictor, write(pool, tmp_path, "parquet"), 3)
    assert ranking.best.column("predicted").to_pylist() == pytest.approx(
        predictor.predict([{n: row[n] for n in SPACE.parameters} for row in pool]).sort().values[:3].tolist(), rel=1e-4
    )


def test_lists_of_layers_and_conditions(tmp_path):
    rows = [
        {
            "w_0": 8 * (1 + i % 3),
            "w_1": 16 if i % 2 else None,
            "w_2": 8 if i % 4 == 1 else None,
            "ops": ["conv", "pool"][: 1 + i % 2],
            "lr": 0.1 * (i % 5),
        }
        for i in range(24)
    ]
    predictor = RidgePredictor().fit(rows, [float(i % 3 + i % 2) for i in range(24)])
    wanted = predictor.predict(rows)
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "pool.parquet")
    header = ",".join(rows[0])
    lines = [",".join("" if v is None else f'"{v}"' for v in row.values()) for row in rows]
    (tmp_path / "pool.csv").write_text("\n".join([header, *lines]))
    for name in ("pool.parquet", "pool.csv"):
        (part,) = stream_predictions(predictor, tmp_path / name)
        torch.testing.assert_close(part.mean, wanted, rtol=1e-4, atol=1e-6)


def test_cells_are_strings(tmp_path):
    space = NASBench201Space()
    index = torch.arange(0, 15625, 700)
    predictor = RidgePredictor(space).fit(index, index.double())
    texts = [space.to_str(space[i]) for i in (5, 77, 901)]
    parquet.write_table(pyarrow.table({"arch": texts, "note": [1, 2, 3]}), tmp_path / "pool.parquet")
    (part,) = stream_predictions(predictor, tmp_path / "pool.parquet")
    torch.testing.assert_close(part.mean, predictor.predict(torch.tensor([5, 77, 901])), rtol=1e-4, atol=1e-4)
    parquet.write_table(pyarrow.table({"arch": [*texts, "|no|"]}), tmp_path / "bad.parquet")
    with pytest.raises(InvalidArchitectureError, match=r"row 3: '\|no\|'"):
        rank_pool(predictor, tmp_path / "bad.parquet")
    with pytest.raises(InvalidSpaceError, match="no column 'cell' of that parameter; the columns are arch, note"):
        rank_pool(predictor, tmp_path / "pool.parquet", column="cell")


def test_files_that_are_refused(predictor, pool, tmp_path):
    with pytest.raises(DataFileError, match="has no Parquet file"):
        rank_pool(predictor, tmp_path)
    with pytest.raises(DataFileError, match="is missing"):
        rank_pool(predictor, tmp_path / "none.parquet")
    table = pyarrow.Table.from_pylist(pool)
    parquet.write_table(table.slice(0, 0), tmp_path / "empty.parquet")
    with pytest.raises(DataFileError, match="has no row"):
        rank_pool(predictor, tmp_path / "empty.parquet")
    parquet.write_table(table.rename_columns(["deph", *table.column_names[1:]]), tmp_path / "typo.parquet")
    with pytest.raises(InvalidSpaceError, match="no column 'depth' of that parameter; did you mean 'deph'"):
        rank_pool(predictor, tmp_path / "typo.parquet")
    (tmp_path / "cut.parquet").write_bytes(write(pool, tmp_path, "parquet").read_bytes()[:-9])
    with pytest.raises(DataFileError, match="is corrupt or not a Parquet file"):
        rank_pool(predictor, tmp_path / "cut.parquet")
    (tmp_path / "text.csv").write_text("depth,width,act,pre\n1,16,relu,True\ndeep,16,relu,True\n")
    with pytest.raises(InvalidArchitectureError, match=r"row 1: .*depth: 'deep' is not a finite number"):
        rank_pool(predictor, tmp_path / "text.csv")
    rows = records(300)
    rows[222]["depth"] = None
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "hole.parquet")
    with pytest.raises(InvalidArchitectureError, match=r"row 222: .*'depth' is missing"):
        rank_pool(predictor, tmp_path / "hole.parquet", batch_rows=50)


def test_unseen_categories_are_ranked(predictor):
    rows = pyarrow.record_batch({"depth": [3], "width": [48], "act": ["silu"], "pre": [True]})
    part = predict_rows(predictor, rows)
    assert bool(part.mean.isfinite().all())


@pytest.mark.parametrize("count", [1, 7, 40, 500])
def test_rows_are_spread_evenly(tmp_path, monkeypatch, count):
    monkeypatch.setattr("pyg_nas_np.predictors.streaming.BATCH", 16)
    path = tmp_path / "pool.csv"
    path.write_text("place,name\n" + "".join(f"{i},n{i}\n" for i in range(100)))
    rows = spread_rows(path, count)["place"]
    assert min(count, 100) <= len(rows) < 2 * count or rows == list(range(100))
    assert rows[0] == 0
    assert len({b - a for a, b in itertools.pairwise(rows)}) <= 1


def test_text_of_a_csv_file_is_read_and_that_of_parquet_stays(tmp_path):
    table = pyarrow.table({"code": ["1", "2"], "flag": ["true", "false"]})
    (tmp_path / "pool.csv").write_text("code,flag\n1,true\n2,false\n")
    parquet.write_table(table, tmp_path / "pool.parquet")
    assert plain_columns(table, tmp_path / "pool.csv") == {"code": [1, 2], "flag": [True, False]}
    assert plain_columns(table, tmp_path / "pool.parquet") == {"code": ["1", "2"], "flag": ["true", "false"]}


def test_a_pool_without_rows_has_none_to_spread(tmp_path):
    (tmp_path / "pool.csv").write_text("depth\n")
    with pytest.raises(DataFileError):
        spread_rows(tmp_path / "pool.csv", 3)


def test_defaults_of_pytorch_change_nothing(predictor, pool, tmp_path, foreign_defaults):
    path = write(pool, tmp_path, "parquet")
    wanted = rank_pool(predictor, path, 5)
    with foreign_defaults():
        found = rank_pool(predictor, path, 5)
    assert found.best.column("name").to_pylist() == wanted.best.column("name").to_pylist()
