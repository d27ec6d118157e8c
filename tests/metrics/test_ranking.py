from __future__ import annotations

from multiprocessing.context import BaseContext
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from pyg_nas_np.metrics import KendallTau, NAtK, PrecisionAtK, RegretAtK, SpearmanRho, functional
from pyg_nas_np.utils import InvalidLabelsError

pytestmark = pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")

METRICS = [
    (KendallTau(), functional.kendall_tau, {}),
    (SpearmanRho(), functional.spearman_rho, {}),
    (NAtK(k=7), functional.n_at_k, {"k": 7}),
    (PrecisionAtK(k=0.1, maximize=False), functional.precision_at_k, {"k": 0.1, "maximize": False}),
    (RegretAtK(k=3), functional.regret_at_k, {"k": 3}),
]


def gathered(rank: int, path: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2)
    preds, target = data()
    metric = KendallTau()
    # Processes hold different numbers of values, in different numbers of batches.
    for start in range(0, 30, 10) if rank == 0 else range(30, 100, 35):
        stop = start + (10 if rank == 0 else 35)
        metric.update(preds[start:stop], target[start:stop])
    path.with_suffix(f".{rank}").write_text(repr(metric.compute().item()))
    dist.destroy_process_group()


def data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(100, generator=generator)
    return (target + torch.randn(100, generator=generator)).mul(4).round(), target


@pytest.mark.parametrize(("metric", "function", "arguments"), METRICS, ids=lambda x: type(x).__name__)
def test_batches_equal_the_function_on_everything(metric, function, arguments):
    preds, target = data()
    metric.reset()
    for batch in torch.arange(100).split(33):
        metric.update(preds[batch], target[batch])
    torch.testing.assert_close(metric.compute(), function(preds, target, **arguments))
    metric.reset()
    with pytest.raises(InvalidLabelsError, match="call update"):
        metric.compute()


def test_directions():
    assert [type(m).__name__ for m, _, _ in METRICS if not m.higher_is_better] == ["NAtK", "RegretAtK"]


def test_bad_batch_is_refused_at_once():
    metric = KendallTau()
    with pytest.raises(InvalidLabelsError, match="NaN"):
        metric.update(torch.tensor([1.0, float("nan")]), torch.zeros(2))


def test_undefined_value_is_opt_in():
    for cls in (KendallTau, SpearmanRho):
        metric = cls(undefined=0.0)
        metric.update(torch.zeros(3), torch.arange(3.0))
        assert metric.compute().item() == 0.0


def test_states_survive_pickling_and_dtype_changes():
    preds, target = data()
    metric = KendallTau()
    metric.persistent(True)
    metric.update(preds, target)
    other = KendallTau()
    other.persistent(True)
    other.load_state_dict(metric.state_dict())
    assert torch.equal(other.compute(), metric.compute())


def test_two_processes_equal_one(tmp_path: Path, processes: BaseContext) -> None:
    path = tmp_path / "store"
    workers = [processes.Process(target=gathered, args=(rank, path)) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(300)
        assert worker.exitcode == 0
    expected = functional.kendall_tau(*data()).item()
    found = [float(path.with_suffix(f".{rank}").read_text()) for rank in range(2)]
    assert found == pytest.approx([expected, expected])
