"""A pool is ranked by two local workers as by one process."""

from __future__ import annotations

import pytest
import torch

from pyg_nas_np.predictors import RidgePredictor
from pyg_nas_np.predictors.streaming import rank_pool
from pyg_nas_np.spaces import Integer, ParameterSpace
from pyg_nas_np.utils import DataFileError

ray = pytest.importorskip("ray")
pytest.importorskip("ray.data")
pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

SPACE = ParameterSpace(depth=Integer(1, 10**6), act=["relu", "gelu"])


@pytest.fixture(scope="module")
def cluster():
    try:
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    except Exception as error:  # Ray needs sockets and shared memory.
        pytest.skip(f"Ray does not start here: {error}")
    yield
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_workers_rank_as_one_process(cluster, tmp_path):
    from pyg_nas_np.integrations.ray_data import rank_dataset

    rows = [arch.to_dict() for arch in SPACE.sample(3000, torch.Generator().manual_seed(0))]
    table = pyarrow.Table.from_pylist([{**row, "name": f"net{i}"} for i, row in enumerate(rows)])
    for i in range(4):
        parquet.write_table(table.slice(750 * i, 750), tmp_path / f"{i}.parquet")
    labels = [row["depth"] / 1e5 + (row["act"] == "gelu") for row in rows[:20]]
    predictor = RidgePredictor().fit(rows[:20], labels)
    wanted = rank_pool(predictor, tmp_path, 25)
    for pool in (tmp_path, ray.data.from_arrow(table)):
        found = rank_dataset(predictor, pool, 25, workers=2, batch_rows=400)
        assert len(found) == 3000
        assert found.best.column("name").to_pylist() == wanted.best.column("name").to_pylist()
        ours, theirs = (part.best.column("predicted").to_pylist() for part in (found, wanted))
        assert ours == pytest.approx(theirs, rel=1e-4)
        for q in (0.1, 0.5, 0.9):
            assert found.distribution.quantile(q) == pytest.approx(wanted.distribution.quantile(q), rel=1e-3)
    with pytest.raises(DataFileError, match="has no row"):
        rank_dataset(predictor, ray.data.from_arrow(table.slice(0, 0)), 5)
