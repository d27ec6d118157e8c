r"""Ray Data: a pool of candidates is ranked by many machines."""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence
from typing import Any

from sklearn.utils.validation import check_is_fitted

from pyg_nas_np.predictors.base import Predictor
from pyg_nas_np.predictors.streaming import BATCH, PoolRanking, predict_rows
from pyg_nas_np.utils import DataFileError, require

data: Any = require("ray.data", "ray")

_RANKING = "ranking"


def _rank(rows: Any, predictor: Predictor, k: int, column: str) -> dict[str, list[bytes]]:
    """Ranks one batch on a worker."""
    ranking = PoolRanking(k, predictor.transform_.maximize)
    for batch in rows.combine_chunks().to_batches():
        ranking.update(predict_rows(predictor, batch, column=column))
    return {_RANKING: [pickle.dumps(ranking)]}


def rank_dataset(
    predictor: Predictor,
    pool: str | os.PathLike[str] | Sequence[str] | Any,
    k: int = 100,
    *,
    workers: int | None = None,
    column: str = "arch",
    batch_rows: int = BATCH,
) -> PoolRanking:
    r"""Ranks candidates by the workers of a Ray cluster; see :func:`~pyg_nas_np.predictors.streaming.rank_pool`.

    Only the best :obj:`k` rows of a batch and the counts of its predictions leave a worker. Of candidates with equal
    predictions, any may stay: batches come in no order. Rows in messages are counted within their batch.

    Args:
        predictor: A fitted predictor.
        pool: A ``ray.data.Dataset``, or paths of Parquet files as ``ray.data.read_parquet`` takes them.
        k: Candidates that are kept.
        workers: Number of workers, at most. (default: as many as the cluster has processors)
        column: Column of the architectures, where they are not records.
        batch_rows: Rows that are predicted at a time.

    Raises:
        DataFileError: If the pool has no row.
        MissingExtraError: At import, if Ray Data is not installed.
    """
    check_is_fitted(predictor, "transform_")
    if not hasattr(pool, "map_batches"):
        pool = data.read_parquet(os.fspath(pool) if isinstance(pool, os.PathLike) else pool)
    # Tasks rather than actors: these would keep the processors from the tasks that read the files.
    parts = pool.map_batches(
        _rank,
        fn_args=(predictor, k, column),
        batch_size=batch_rows,
        batch_format="pyarrow",
        concurrency=workers,
    )
    ranking = PoolRanking(k, predictor.transform_.maximize)
    for part in parts.iter_rows():
        ranking.merge(pickle.loads(part[_RANKING]))
    if not len(ranking):
        raise DataFileError("the pool has no row")
    return ranking
