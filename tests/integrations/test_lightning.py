"""The callback, in real trainings of a module whose accuracy is scripted."""

from __future__ import annotations

import logging
import warnings

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

from pyg_nas_np.curves import EarlyStopping, SequentialRegression
from pyg_nas_np.integrations.lightning import CurveStopping
from pyg_nas_np.utils import InvalidCurvesError

EPOCHS = 8


class Scripted(LightningModule):
    def __init__(self, height):
        super().__init__()
        self.layer, self.height = torch.nn.Linear(1, 1), height

    def training_step(self, batch, index):
        return self.layer(batch).mean()

    def validation_step(self, batch, index):
        self.log("val_acc", self.height * (1 - 0.6 ** (self.current_epoch + 1)))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def train(callback, height, epochs=EPOCHS, **kwargs):
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = Trainer(
            max_epochs=epochs, callbacks=[callback], accelerator="cpu", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, **kwargs,
        )  # fmt: skip
        data = DataLoader(torch.zeros(2, 1))
        trainer.fit(Scripted(height), data, data)
    return trainer


def test_it_stops_and_reports():
    rule = EarlyStopping(EPOCHS, "up", SequentialRegression("ols"), burn_in=5)
    for height in np.linspace(0.5, 0.8, 5):
        callback = CurveStopping(rule, "val_acc")
        assert train(callback, float(height)).current_epoch == EPOCHS
    np.testing.assert_allclose(rule.finished.final, np.linspace(0.5, 0.8, 5) * (1 - 0.6**8), atol=1e-6)
    hopeless, hopeful = CurveStopping(rule, "val_acc"), CurveStopping(rule, "val_acc")
    assert train(hopeless, 0.2).current_epoch < EPOCHS
    assert hopeless.decision.stop
    assert train(hopeful, 0.9).current_epoch == EPOCHS
    assert len(rule.finished) == 6


def test_checkpoints_keep_the_values():
    rule = EarlyStopping(EPOCHS, "up", burn_in=5)
    first = CurveStopping(rule, "val_acc")
    train(first, 0.5, epochs=3)
    second = CurveStopping(rule, "val_acc")
    second.load_state_dict(first.state_dict())
    assert second.values == first.values
    assert len(second.values) == 3


def test_an_unknown_metric():
    with pytest.raises(InvalidCurvesError, match="'val_loss' was not logged; logged: val_acc"):
        train(CurveStopping(EarlyStopping(EPOCHS, "up"), "val_loss"), 0.5, num_sanity_val_steps=0)
