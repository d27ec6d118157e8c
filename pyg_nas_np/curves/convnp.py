r"""A convolutional neural process on curves: finished trainings are the context, running ones the targets."""

from __future__ import annotations

import math
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyg_nas_np.curves.base import CurvePredictor
from pyg_nas_np.curves.data import Floats, LearningCurves
from pyg_nas_np.curves.features import curve_features, wide_columns
from pyg_nas_np.curves.scaling import CurveScale
from pyg_nas_np.nn import SetConv, SetConvToGrid
from pyg_nas_np.ops import window_for
from pyg_nas_np.utils.defaults import fixed_defaults
from pyg_nas_np.utils.random import drawing_from

GRID = 32
WINDOW = window_for(4 / GRID, 1 / GRID, error=1e-3)

Rows: TypeAlias = NDArray[np.int64]


class CurveProcess(nn.Module):
    r"""Two set convolutions: over the time of each training, and over trainings.

    The first maps the observed values of a training, at times in (0, 1], to a grid for a CNN. The output of the CNN at
    the time of the last value and the features of the configuration are mapped to an embedding of the training. The
    second set convolution acts in the embedding space: it maps residuals of finished trainings (final values minus
    linear predictions) to running ones.

    Args:
        features: Number of features of a configuration.
        channels: Channels on the grid.
        dim: Dimensions of the embedding of trainings.
    """

    def __init__(self, features: int, channels: int = 16, dim: int = 4) -> None:
        super().__init__()
        spacing = 1.0 / GRID
        self.to_grid = SetConvToGrid(1, channels, spacing=spacing, window=WINDOW, tolerance=1e-2)
        self.cnn = nn.Sequential(
            nn.Conv1d(channels, channels, 5, padding=2), nn.GELU(), nn.Conv1d(channels, channels, 5, padding=2)
        )
        self.embed = nn.Sequential(nn.Linear(channels + features + 2, 32), nn.GELU(), nn.Linear(32, dim))
        self.over = SetConv(1, None, dim, lengthscale=1.0, heads=4)
        self.head = nn.Sequential(nn.Linear(8 + dim + 2, 32), nn.GELU(), nn.Linear(32, 2))

    def place(self, seen: Tensor, features: Tensor) -> Tensor:
        r"""Returns the embedding of each training, ``[n, dim]``.

        Args:
            seen: Times in (0, 1] and values, ``[n, tau, 2]``.
            features: Features of the configurations, ``[n, F]``.
        """
        n, tau, _ = seen.shape
        ptr = tau * torch.arange(n + 1, device=seen.device)
        grid = self.to_grid(
            seen[..., :1].reshape(-1, 1), seen[..., 1:].reshape(-1, 1), seen.new_zeros(1), (GRID + 1,), ptr=ptr
        ).movedim(-1, 1)
        grid = grid + self.cnn(grid)
        now = round(float(seen[0, -1, 0]) * GRID)
        places: Tensor = self.embed(torch.cat([grid[:, :, now], features, seen[:, -1]], dim=1))
        return places

    def forward(
        self, context: Tensor, residual: Tensor, target: Tensor, prior: Tensor, spread: Tensor
    ) -> tuple[Tensor, Tensor]:
        r"""Returns mean and standard deviation of the targets' residuals, ``[m]``.

        Args:
            context: Embeddings of the finished trainings, ``[n, dim]``.
            residual: Residuals of their linear predictions, in units of :obj:`spread`, ``[n]``.
            target: Embeddings of the running trainings, ``[m, dim]``.
            prior: Their linear predictions, ``[m]``.
            spread: Root mean square of the residuals, a number.
        """
        carried = self.over(context, residual[:, None], target)
        density, signal = carried[:, :4], carried[:, 4:]
        extra = torch.stack([prior, spread.log().expand_as(prior)], dim=1)
        out = self.head(torch.cat([torch.log1p(density), signal, target, extra], dim=1))
        # Initially the process predicts the linear prediction with the standard deviation of the context.
        return 0.3 * out[:, 0], 0.05 + softplus(0.5 * out[:, 1] + 0.54)


class CurveConvNP(CurvePredictor):
    r"""Convolutional neural process on learning curves, trained on random splits of the finished ones.

    A task draws a number of observed epochs and splits curves into context and targets. Half of the tasks are drawn
    from the finished curves and half from synthetic saturating curves, whose height and rate depend on the features of
    the configurations. The process predicts the residual of a ridge regression on the prefix; its inputs are
    leave-one-out residuals at the context. With few curves it falls back on the ridge regression.

    Args:
        steps: Number of tasks to train on.
        random_state: Seed.
    """

    minimum = 6

    def __init__(self, *, steps: int = 400, random_state: int = 0) -> None:
        self.steps = steps
        self.random_state = random_state

    @fixed_defaults
    def _fit(self, curves: LearningCurves) -> None:
        self.scale_ = CurveScale(curves)
        self.wide_ = wide_columns(curves)
        raw = self._described(curves)
        self.center_, self.spread_ = raw.mean(0), raw.std(0) + 1e-9
        values = self.scale_.forward(curves.observed(len(curves.epochs)))
        features = self._features(curves)
        rng = np.random.default_rng(self.random_state)
        with drawing_from(torch.Generator().manual_seed(self.random_state)):
            process = CurveProcess(features.shape[1])
        optimizer = torch.optim.Adam(process.parameters(), lr=3e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(self.steps, 1))
        count, total = values.shape
        for step in range(self.steps):
            tau = int(rng.integers(1, max(2, total)))
            table = values if step % 2 else _synthetic(features, total, rng)
            order = rng.permutation(count)
            part = int(rng.integers(max(3, count // 3), max(4, count - count // 5)))
            found = self._residuals(process, table[:, :tau], table[:, -1], total, features, order[:part], order[part:])
            wanted = np.clip((table[order[part:], -1] - found.prior) / found.spread, -10, 10)
            normal = torch.distributions.Normal(found.mean, found.std)
            loss = -normal.log_prob(torch.tensor(wanted, dtype=torch.float32)).mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(process.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        self.process_ = process.eval()

    def _described(self, curves: LearningCurves) -> Floats:
        groups = [g for g, c in (("AP", curves.architecture), ("HP", curves.hyperparameters)) if c]
        return curve_features(curves, 1, groups, self.wide_)[0] if groups else np.zeros((len(curves), 1))

    def _features(self, curves: LearningCurves) -> Floats:
        return np.asarray(np.clip((self._described(curves) - self.center_) / self.spread_, -4, 4))

    def _linear(
        self, seen: Floats, features: Floats, final: Floats, context: Rows, target: Rows
    ) -> tuple[Floats, Floats, float]:
        """Ridge predictions: leave-one-out residuals of the context, predictions of the targets, and the spread."""
        x = np.concatenate([seen, features], axis=1)
        x = (x - x[context].mean(0)) / (x[context].std(0) + 1e-6)
        a = x[context]
        y, center = final[context], final[context].mean()
        gram = a @ a.T
        values, vectors = np.linalg.eigh(gram)
        rotated = vectors.T @ (y - center)
        best: tuple[float, Floats, float] | None = None
        for penalty in (0.03, 0.3, 3.0, 30.0, 300.0):
            shrink = values / (values + penalty)
            fitted = vectors @ (shrink * rotated)
            leverage = (vectors**2 @ shrink) + 1.0 / len(y)
            left = (y - center - fitted) / np.maximum(1.0 - leverage, 1e-3)
            error = float(np.mean(left**2))
            if best is None or error < best[0]:
                best = error, left, penalty
        assert best is not None
        weights = vectors @ (rotated / (values + best[2]))
        return best[1], center + x[target] @ (a.T @ weights), math.sqrt(max(best[0], 1e-8))

    def _residuals(
        self,
        process: CurveProcess,
        seen: Floats,
        final: Floats,
        total: int,
        features: Floats,
        context: Rows,
        target: Rows,
    ) -> _Residuals:
        """Predictions of the targets, from values ``[n, tau]`` and the final values of the context."""
        left, prior, spread = self._linear(seen, features, final, context, target)
        times = np.broadcast_to(np.arange(1, seen.shape[1] + 1) / total, seen.shape)
        both = torch.tensor(np.stack([times, np.clip(seen, -10, 10)], -1), dtype=torch.float32)
        places = process.place(both, torch.tensor(features, dtype=torch.float32))
        mean, std = process(
            places[context],
            torch.tensor(np.clip(left / spread, -5, 5), dtype=torch.float32),
            places[target],
            torch.tensor(prior, dtype=torch.float32),
            torch.tensor(spread, dtype=torch.float32),
        )
        return _Residuals(mean, std, prior, spread)

    @fixed_defaults
    @torch.no_grad()
    def _predict(self, curves: LearningCurves, tau: int) -> tuple[Floats, Floats]:
        finished = self._context(tau)
        seen = self.scale_.forward(np.concatenate([finished.observed(tau), curves.observed(tau)]))
        final = np.concatenate([self.scale_.forward(finished.final), np.full(len(curves), np.nan)])
        features = np.concatenate([self._features(finished), self._features(curves)])
        context, target = np.arange(len(finished)), np.arange(len(finished), len(seen))
        total = len(curves.epochs)
        mean, std, prior, spread = self._residuals(self.process_, seen, final, total, features, context, target)
        return self.scale_.back(prior + spread * mean.double().numpy(), spread * std.double().numpy())


class _Residuals(NamedTuple):
    """Mean and standard deviation of the residuals in units of the spread, and the linear predictions."""

    mean: Tensor
    std: Tensor
    prior: Floats
    spread: float


def _synthetic(features: Floats, total: int, rng: np.random.Generator) -> Floats:
    """Saturating curves, ``[n, total]``, whose ends have mean 0 and standard deviation 1."""
    count, width = features.shape
    inputs = np.concatenate([features, rng.normal(size=(count, 3))], axis=1)
    first, second = rng.normal(size=(2, width + 3)) / np.sqrt(width + 3)
    height, rate = inputs @ first, np.exp(0.7 * inputs @ second + rng.normal(0.0, 0.5))
    t = np.arange(1, total + 1) / total
    shape = np.exp(-3.0 * rate[:, None] * t) if rng.random() < 0.5 else (1 + 10.0 * t) ** -rate[:, None]
    depth = rng.uniform(0.5, 4.0)
    noise = np.exp(rng.uniform(np.log(0.01), np.log(0.2)))
    curves = height[:, None] - depth * shape + noise * rng.normal(size=(count, total))
    return np.asarray((curves - curves[:, -1].mean()) / (curves[:, -1].std() + 1e-9))
