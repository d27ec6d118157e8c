"""The loop, in real trainings of small networks on handwritten digits."""

from __future__ import annotations

import logging
import math

import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import Callback
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pyg_nas_np.integrations.lightning_budget import BudgetedLoop
from pyg_nas_np.predictors.fidelity import Fidelity
from pyg_nas_np.search import BudgetedSearch
from pyg_nas_np.spaces import Float, Integer, ParameterSpace
from pyg_nas_np.utils import InvalidFidelityError, InvalidLabelsError

SPACE = ParameterSpace(depth=Integer(0, 2), width=Integer(4, 64, step=4), kind=["mlp", "conv"], lr=Float(1e-3, 0.3))
EPOCHS = Fidelity("epochs", (1, 2, 4), continued=True)
OPTIONS = {
    "accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}  # fmt: skip

for name in ("lightning.pytorch", "lightning.fabric"):
    logging.getLogger(name).setLevel(logging.ERROR)
pytestmark = pytest.mark.filterwarnings("ignore:.*num_workers.*", "ignore:Checkpoint directory")


class Classifier(LightningModule):
    def __init__(self, arch, trained=None):
        super().__init__()
        width, layers = arch["width"], []
        if arch["kind"] == "conv":
            layers = [nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, width // 4, 3, stride=2), nn.ReLU(), nn.Flatten()]
        for _ in range(arch["depth"]):
            layers += [nn.LazyLinear(width), nn.ReLU()]
        self.net = nn.Sequential(*layers, nn.LazyLinear(10))
        self.net(torch.zeros(2, 64))
        self.lr, self.trained = arch["lr"], [] if trained is None else trained

    def training_step(self, batch, index):
        x, y = batch
        if index == 0:
            self.trained.append(self.current_epoch + 1)
        return nn.functional.cross_entropy(self.net(x), y)

    def validation_step(self, batch, index):
        x, y = batch
        self.log("accuracy", (self.net(x).argmax(1) == y).float().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)


@pytest.fixture(scope="module")
def loaders():
    x, y = (torch.as_tensor(a) for a in load_digits(return_X_y=True))
    x, order = x.float() / 16, torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    parts = [TensorDataset(x[rows], y[rows]) for rows in (order[:600], order[600:900])]
    return [DataLoader(part, batch_size=100) for part in parts]


def make(budget=3.0, fidelity=EPOCHS, **options):
    return BudgetedSearch(SPACE, fidelity, budget, initial=4, screen=2, **options)


def built(arch):
    torch.manual_seed(0)
    return Classifier(arch)


def test_finds_a_good_network_within_the_budget(loaders, tmp_path):
    search = make(4.0)
    trained = []
    loop = BudgetedLoop(search, lambda arch: Classifier(arch, trained), "accuracy", tmp_path, **OPTIONS)
    arch, accuracy = loop.run(*loaders)
    assert search.best == (arch, accuracy)
    assert search.pending == []
    archs, levels, y = search.measured
    # Four trainings of four epochs cannot promise more: the draw of the first weights decides between .25 and .9.
    assert accuracy == float(y[levels == 4.0].max())
    assert accuracy > float(y[levels == 1.0].median())
    # Continued trainings pay for each epoch once, and tell the levels that they pass.
    assert len(trained) == pytest.approx(4 * search.spent)
    assert search.spent <= 4.0 + 1e-9
    rows = list(zip(archs, levels.tolist(), strict=True))
    assert len(set(rows)) == len(rows)
    assert (arch, 1.0) in rows
    assert (arch, 2.0) in rows
    assert bool(((y >= 0) & (y <= 1)).all())


def test_a_promotion_goes_on_where_the_training_stopped(loaders, tmp_path):
    search, trained = make(), []
    loop = BudgetedLoop(search, lambda arch: Classifier(arch, trained), "accuracy", tmp_path, **OPTIONS)
    for _ in range(4):
        loop.train(search.ask()[0], *loaders)
    assert trained == [1] * 4
    [training] = search.ask()
    assert (training.start, training.level) == (1.0, 4.0)
    y = loop.train(training, *loaders)
    assert trained == [1] * 4 + [2, 3, 4]
    assert search.measured[1].tolist() == [1.0] * 4 + [2.0, 4.0]
    assert float(search.measured[2][-1]) == y


def test_without_continuation_every_level_is_a_training_of_its_own(loaders, tmp_path):
    search, trained = make(fidelity=Fidelity("epochs", (1, 3))), []
    loop = BudgetedLoop(search, lambda arch: Classifier(arch, trained), "accuracy", tmp_path, **OPTIONS)
    for _ in range(5):
        loop.train(search.ask()[0], *loaders)
    assert trained == [1] * 4 + [1, 2, 3]
    assert search.measured[1].tolist() == [1.0] * 4 + [3.0]


@pytest.mark.parametrize("where", ["loss", "label"])
def test_nan_is_told_as_diverged_and_ends_the_training(where, loaders, tmp_path):
    class Broken(Classifier):
        def training_step(self, batch, index):
            return super().training_step(batch, index) * (math.nan if where == "loss" else 1.0)

        def validation_step(self, batch, index):
            self.log("accuracy", math.inf if where == "label" else 0.1)

    search, trained = make(fidelity=Fidelity("epochs", (3, 6))), []
    [training] = search.ask()
    loop = BudgetedLoop(search, lambda arch: Broken(arch, trained), "accuracy", tmp_path, **OPTIONS)
    assert math.isnan(loop.train(training, *loaders))
    assert trained == [1]
    assert math.isnan(float(search.measured[2][0]))
    assert search.pending == []
    assert all(other.arch != training.arch for other in search.ask(8))


def test_a_training_that_raises_is_freed(loaders, tmp_path):
    def failing(arch):
        raise MemoryError("no memory")

    search = make()
    with pytest.raises(MemoryError, match="no memory"):
        BudgetedLoop(search, failing, "accuracy", tmp_path, **OPTIONS).run(*loaders)
    assert search.pending == []
    assert search.spent == pytest.approx(0.0)
    again = make()
    BudgetedLoop(again, built, "accuracy", tmp_path, **OPTIONS)
    assert again.pending == []


class Killed(BaseException):
    """As by a signal: nothing may be written any more."""


class Kill(Callback):
    def on_train_epoch_start(self, trainer, module):
        if trainer.current_epoch == 2:
            raise Killed


def test_a_killed_run_goes_on_in_the_middle_of_its_training(loaders, tmp_path):
    search, trained = make(), []
    loop = BudgetedLoop(search, built, "accuracy", tmp_path, callbacks=[Kill()], **OPTIONS)
    with pytest.raises(Killed):
        loop.run(*loaders)
    again = make()
    loop = BudgetedLoop(again, lambda arch: Classifier(arch, trained), "accuracy", tmp_path, **OPTIONS)
    [training] = again.pending
    assert training.level == 4.0
    assert again.spent == search.spent
    loop.run(*loaders)
    assert trained[:2] == [3, 4]
    archs, levels, _ = again.measured
    assert [level for arch, level in zip(archs, levels.tolist(), strict=True) if arch == training.arch] == [1, 2, 4]
    assert again.spent <= again.budget + 1e-9


def test_a_run_that_was_killed_between_training_and_telling(loaders, tmp_path):
    search = make()
    loop = BudgetedLoop(search, built, "accuracy", tmp_path, **OPTIONS)
    [training] = search.ask()
    search.save(tmp_path / "before.pt")
    y = loop.train(training, *loaders)
    (tmp_path / "before.pt").replace(loop.state)
    trained, again = [], make()
    loop = BudgetedLoop(again, lambda arch: Classifier(arch, trained), "accuracy", tmp_path, **OPTIONS)
    assert loop.train(again.pending[0], *loaders) == y
    assert trained == []


def test_what_is_missing_is_named(loaders, tmp_path):
    search = make()
    with pytest.raises(InvalidLabelsError, match="the metric 'acc' was not logged; logged: accuracy"):
        BudgetedLoop(search, built, "acc", tmp_path, **OPTIONS).run(*loaders)
    seldom = {**OPTIONS, "check_val_every_n_epoch": 2}
    with pytest.raises(
        InvalidLabelsError, match="'accuracy' was not logged by a validation after epoch 1, only after none"
    ):
        BudgetedLoop(make(), built, "accuracy", tmp_path / "seldom", **seldom).run(*loaders)
    with pytest.raises(InvalidFidelityError, match=r"share of data 0.25 is no number of epochs"):
        BudgetedLoop(make(fidelity=Fidelity("share of data", (0.25, 1))), built, "accuracy", tmp_path)
