"""The callback, in real trainings of a module whose accuracy is scripted."""

from __future__ import annotations

import logging
import os
import socket
import warnings

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from pyg_nas_np.curves import EarlyStopping, SequentialRegression
from pyg_nas_np.integrations.lightning import CurveStopping
from pyg_nas_np.utils import InvalidCurvesError

EPOCHS, BATCHES = 8, 4


def accuracy(height, epoch):
    return height * (1 - 0.6**epoch)


class Scripted(LightningModule):
    """Its accuracy follows from the batches that it has seen in all, as that of a real model would."""

    def __init__(self, height):
        super().__init__()
        self.layer, self.height = torch.nn.Linear(1, 1), height
        self.register_buffer("seen", torch.zeros(()))

    def training_step(self, batch, index):
        self.seen += 1
        return self.layer(batch).mean()

    def validation_step(self, batch, index):
        self.log("val_acc", accuracy(self.height, float(self.seen) / BATCHES))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def make_trainer(*callbacks, epochs=EPOCHS, **kwargs):
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    checkpoints = any(isinstance(callback, ModelCheckpoint) for callback in callbacks)
    return Trainer(
        max_epochs=epochs, callbacks=list(callbacks), accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_checkpointing=checkpoints, enable_model_summary=False, **kwargs,
    )  # fmt: skip


def fit(trainer, module, **kwargs):
    data = DataLoader(torch.zeros(BATCHES, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, data, data, **kwargs)
    return trainer


def train(callback, height, epochs=EPOCHS, **kwargs):
    return fit(make_trainer(callback, epochs=epochs, **kwargs), Scripted(height))


def make_rule(epochs=EPOCHS, grown=True):
    """A rule that has seen five trainings, and stops a bad one after its first epoch."""
    rule = EarlyStopping(epochs, "up", SequentialRegression("ols"), burn_in=5)
    for height in np.linspace(0.5, 0.8, 5) if grown else ():
        rule.finish([accuracy(float(height), epoch) for epoch in rule.finished.epochs])
    return rule


def assert_is_true(callback, height, epochs=range(1, EPOCHS + 1)):
    assert callback.curve == pytest.approx({epoch: accuracy(height, epoch) for epoch in epochs}, abs=1e-6)


def test_it_stops_and_reports():
    rule = make_rule(grown=False)
    for height in np.linspace(0.5, 0.8, 5):
        callback = CurveStopping(rule, "val_acc")
        assert train(callback, float(height)).current_epoch == EPOCHS
        assert_is_true(callback, float(height))
    np.testing.assert_allclose(rule.finished.final, np.linspace(0.5, 0.8, 5) * (1 - 0.6**8), atol=1e-6)
    hopeless, hopeful = CurveStopping(rule, "val_acc"), CurveStopping(rule, "val_acc")
    assert train(hopeless, 0.2).current_epoch < EPOCHS
    assert hopeless.decision.stop
    assert train(hopeful, 0.9).current_epoch == EPOCHS
    assert len(rule.finished) == 6


@pytest.mark.parametrize(
    "arguments",
    [
        {"num_sanity_val_steps": 2},
        {"val_check_interval": 0.25},
        {"val_check_interval": 2},
        {"val_check_interval": 4, "check_val_every_n_epoch": None},
        {"limit_train_batches": 4, "accumulate_grad_batches": 3},
    ],
    ids=str,
)
def test_the_best_training_of_all_is_followed_to_its_end(arguments):
    rule = make_rule()
    callback = CurveStopping(rule, "val_acc")
    assert train(callback, 0.9, **arguments).current_epoch == EPOCHS
    assert_is_true(callback, 0.9)
    assert len(rule.finished) == 6
    assert rule.finished.final[-1] == pytest.approx(accuracy(0.9, EPOCHS), abs=1e-6)


def test_validation_outside_of_fit_is_no_epoch():
    rule = make_rule()
    callback = CurveStopping(rule, "val_acc")
    trainer, module, data = make_trainer(callback, epochs=3), Scripted(0.9), DataLoader(torch.zeros(BATCHES, 1))
    trainer.validate(module, data, verbose=False)
    assert callback.curve == {}
    fit(trainer, module)
    trainer.validate(module, data, verbose=False)
    assert_is_true(callback, 0.9, range(1, 4))


def test_rare_validations_need_a_rule_with_their_epochs():
    rule = make_rule(range(2, EPOCHS + 1, 2))
    callback = CurveStopping(rule, "val_acc")
    assert train(callback, 0.9, check_val_every_n_epoch=2).current_epoch == EPOCHS
    assert_is_true(callback, 0.9, range(2, EPOCHS + 1, 2))
    assert len(rule.finished) == 6
    # More validations than epochs of the rule do no harm.
    callback = CurveStopping(rule, "val_acc")
    train(callback, 0.95)
    assert_is_true(callback, 0.95, range(2, EPOCHS + 1, 2))


@pytest.mark.parametrize(
    "arguments",
    [
        {"check_val_every_n_epoch": 2},
        {"val_check_interval": 3},
        {"val_check_interval": 7, "check_val_every_n_epoch": None},
        {"limit_val_batches": 0},
    ],
    ids=str,
)
def test_an_epoch_without_validation_is_an_error(arguments):
    rule = make_rule()
    with pytest.raises(InvalidCurvesError, match="for epoch 1, but there was no validation after its last batch"):
        train(CurveStopping(rule, "val_acc"), 0.9, **arguments)
    assert len(rule.finished) == 5


def test_epoch_zero_is_never_validated():
    with pytest.raises(InvalidCurvesError, match=r"the epochs \[0, 1\], but only \[1\] are known"):
        train(CurveStopping(make_rule(range(0, 9)), "val_acc"), 0.9)


def test_a_training_cut_within_an_epoch_is_not_reported():
    rule = make_rule()
    callback = CurveStopping(rule, "val_acc")
    train(callback, 0.9, max_steps=2 * BATCHES + 2)
    assert_is_true(callback, 0.9, range(1, 3))
    assert len(rule.finished) == 5


def test_a_second_training_with_the_same_callback_starts_anew():
    rule = make_rule(grown=False)
    callback = CurveStopping(rule, "val_acc")
    for height in (0.5, 0.7):
        train(callback, height)
        assert_is_true(callback, height)
    train(callback, 0.6, epochs=3)
    train(callback, 0.8)
    assert rule.finished.final == pytest.approx([accuracy(h, EPOCHS) for h in (0.5, 0.7, 0.8)], abs=1e-6)


def test_a_fit_that_goes_on_continues_the_curve():
    rule = make_rule()
    callback = CurveStopping(rule, "val_acc")
    trainer, module = make_trainer(callback, epochs=3), Scripted(0.9)
    fit(trainer, module)
    trainer.fit_loop.max_epochs = EPOCHS
    fit(trainer, module)
    assert_is_true(callback, 0.9)
    assert len(rule.finished) == 6


@pytest.mark.parametrize("at_train_end", [True, False])
@pytest.mark.parametrize("resumed", [False, True])
def test_checkpoints_keep_the_curve(tmp_path, at_train_end, resumed):
    saving = ModelCheckpoint(
        tmp_path, filename="{epoch}", save_top_k=-1, monitor="val_acc", save_on_train_epoch_end=at_train_end
    )
    first = CurveStopping(make_rule(), "val_acc")
    fit(make_trainer(first, saving, epochs=5), Scripted(0.9))
    assert_is_true(first, 0.9, range(1, 6))
    rule = make_rule()
    second = CurveStopping(rule, "val_acc")
    if resumed:
        # From the third epoch, with a callback that has meanwhile seen another training.
        train(second, 0.85, epochs=5)
    fit(make_trainer(second), Scripted(0.9), ckpt_path=tmp_path / "epoch=2.ckpt")
    assert_is_true(second, 0.9)
    assert len(rule.finished) == 6


def test_a_checkpoint_without_the_curve_is_an_error(tmp_path):
    saving = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    fit(make_trainer(saving, epochs=3), Scripted(0.9))
    with pytest.raises(InvalidCurvesError, match=r"\[1, 2, 3, 4\], but only \[4\] are known; resume from a checkpoint"):
        fit(make_trainer(CurveStopping(make_rule(), "val_acc")), Scripted(0.9), ckpt_path=tmp_path / "epoch=2.ckpt")


def test_an_unknown_metric():
    with pytest.raises(InvalidCurvesError, match="'val_loss' was not logged; logged: val_acc"):
        train(CurveStopping(make_rule(grown=False), "val_loss"), 0.5, num_sanity_val_steps=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_diverged_epoch_is_recorded(value):
    class Diverging(Scripted):
        def validation_step(self, batch, index):
            self.log("val_acc", value if self.current_epoch == 1 else 0.9)

    callback = CurveStopping(make_rule(), "val_acc")
    fit(make_trainer(callback, epochs=3), Diverging(0.9))
    assert list(callback.curve) == [1, 2, 3]
    assert not np.isfinite(callback.curve[2])


def test_a_strategy_that_forgets_is_refused():
    with pytest.raises(Exception, match="trains in processes of its own"):
        train(CurveStopping(make_rule(), "val_acc"), 0.9, strategy="ddp_fork", devices=2)


class Shard(Scripted):
    """Its ranks disagree: one by one, the first would stop and the second go on."""

    def validation_step(self, batch, index):
        height = 0.05 if self.global_rank == 0 else self.height
        self.log("val_acc", accuracy(height, self.current_epoch + 1), sync_dist=False)


def train_ranks(rank, port, folder):
    # As a launcher starts them.
    os.environ |= {"LOCAL_RANK": str(rank), "MASTER_PORT": str(port)}
    rule = make_rule()
    for height in (1.75, 0.35):
        callback = CurveStopping(rule, "val_acc")
        trainer = make_trainer(callback, strategy="ddp", devices=2)
        fit(trainer, Shard(height))
        with open(folder / f"rank{trainer.global_rank}", "a", encoding="utf-8") as file:
            file.write(f"{trainer.current_epoch} {len(rule.finished)} {callback.curve[1]:.3f};")


@pytest.mark.slow
def test_ranks_have_one_curve_and_one_decision(tmp_path, processes):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [processes.Process(target=train_ranks, args=(rank, port, tmp_path)) for rank in range(2)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(300)
        assert rank.exitcode == 0
    # The mean of 0.05 and 1.75 is the best training of all, that of 0.05 and 0.35 a hopeless one.
    assert (tmp_path / "rank0").read_text() == "8 6 0.360;1 6 0.080;"
    assert (tmp_path / "rank1").read_text() == "8 6 0.360;1 6 0.080;"
