r"""Trains a ConvCNP on one-dimensional functions and plots its predictions.

A set convolution writes the context onto a grid, a small CNN runs over the grid and a second set convolution reads mean
and standard deviation off it at the targets:

    python examples/convcnp_1d.py --task sawtooth --output convcnp_1d.png
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyg_nas_np.nn import SetConvFromGrid, SetConvToGrid, grid_over
from pyg_nas_np.ops import window_for
from pyg_nas_np.utils import atomic_path, require

LOW, HIGH = -2.0, 2.0
NOISE = 0.05
GP_LENGTHSCALE = 0.4


class Tasks(NamedTuple):
    r"""A ragged batch of context and target points; ``ptr`` holds the offsets of the tasks."""

    x_context: Tensor  # shape: [N, 1]
    y_context: Tensor  # shape: [N, 1]
    ptr_context: Tensor  # shape: [B + 1]
    x_target: Tensor  # shape: [M, 1]
    y_target: Tensor  # shape: [M, 1]
    ptr_target: Tensor  # shape: [B + 1]


class ConvCNP1d(nn.Module):
    r"""A convolutional conditional neural process on the line (`Gordon et al., 2020`_).

    .. _Gordon et al., 2020: https://arxiv.org/abs/1910.13556
    """

    def __init__(self, channels: int = 48, layers: int = 5, width: int = 13, points_per_unit: int = 16) -> None:
        super().__init__()
        spacing = 1.0 / points_per_unit
        # Room for the length scales, which start at two spacings, to double.
        window = window_for(4 * spacing, spacing, error=1e-3)
        self.spacing, self.margin = spacing, 0.5
        self.encode = SetConvToGrid(1, channels, spacing=spacing, window=window)
        blocks: list[nn.Module] = []
        for _ in range(layers):
            depthwise = nn.Conv1d(channels, channels, width, padding="same", groups=channels)
            blocks += [nn.LeakyReLU(0.1), depthwise, nn.Conv1d(channels, channels, 1)]
        self.cnn = nn.Sequential(*blocks)
        # Mapping to two channels before the way back rather than after it is the same function, and cheaper.
        self.decode = SetConvFromGrid(channels, hidden_channels=2, spacing=spacing, window=window)

    def forward(self, x_context: Tensor, y_context: Tensor, ptr_context: Tensor, x_target: Tensor, ptr_target: Tensor):
        r"""Returns mean and standard deviation at the targets, ``[M, 1]`` each."""
        origin, shape = grid_over(LOW, HIGH, self.spacing, self.margin)
        h = self.encode(x_context, y_context, origin, shape, ptr=ptr_context).movedim(-1, 1)
        out = self.decode((h + self.cnn(h)).movedim(1, -1), x_target, origin, ptr=ptr_target)
        return out[:, :1], 0.01 + softplus(out[:, 1:])


def gp_covariance(x: Tensor, z: Tensor) -> Tensor:
    r"""Returns the covariance of the Gaussian process, without noise."""
    return torch.exp(-0.5 * ((x - z.mT) / GP_LENGTHSCALE) ** 2)


def gp_function(x: Tensor, generator: torch.Generator) -> Tensor:
    r"""Draws a function with the squared-exponential kernel at ``[n, 1]`` points."""
    covariance = gp_covariance(x.double(), x.double()) + 1e-6 * torch.eye(x.size(0))
    white = torch.randn(x.size(0), 1, generator=generator, dtype=torch.float64)
    return (torch.linalg.cholesky(covariance) @ white).float()


def sawtooth_function(x: Tensor, generator: torch.Generator) -> Tensor:
    r"""Draws a rising or falling sawtooth of amplitude 2 and one to two teeth a unit."""
    frequency, phase, side = torch.rand(3, generator=generator).tolist()
    direction = 1.0 if side < 0.5 else -1.0
    return 2.0 * ((direction * (1.0 + frequency) * x + phase) % 1.0) - 1.0


FUNCTIONS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {"gp": gp_function, "sawtooth": sawtooth_function}


def draw_tasks(task: str, count: int, generator: torch.Generator, targets: int = 50) -> Tasks:
    r"""Draws noisy functions, each with 3 to 25 context points and its targets, all uniform on the interval."""
    sizes = torch.randint(3, 26, (count,), generator=generator)
    parts = []
    for size in sizes.tolist():
        x = LOW + (HIGH - LOW) * torch.rand(size + targets, 1, generator=generator)
        y = FUNCTIONS[task](x, generator) + NOISE * torch.randn(x.shape, generator=generator)
        parts.append((x[:size], y[:size], x[size:], y[size:]))
    x_context, y_context, x_target, y_target = (torch.cat(part) for part in zip(*parts, strict=True))
    ptr = nn.functional.pad(sizes.cumsum(0), (1, 0))
    return Tasks(x_context, y_context, ptr, x_target, y_target, targets * torch.arange(count + 1))


def log_likelihood(model: ConvCNP1d, tasks: Tasks) -> Tensor:
    r"""Returns the mean log density of a target, in nats."""
    mean, std = model(tasks.x_context, tasks.y_context, tasks.ptr_context, tasks.x_target, tasks.ptr_target)
    return torch.distributions.Normal(mean, std).log_prob(tasks.y_target).mean()


def gp_oracle(tasks: Tasks) -> float:
    r"""Returns the mean log density of a target under the process that drew the tasks: no model can expect more."""
    total = 0.0
    context, target = tasks.ptr_context.tolist(), tasks.ptr_target.tolist()
    for b in range(len(context) - 1):
        own, other = slice(context[b], context[b + 1]), slice(target[b], target[b + 1])
        x, y, z = tasks.x_context[own].double(), tasks.y_context[own].double(), tasks.x_target[other].double()
        factor = torch.linalg.cholesky(gp_covariance(x, x) + NOISE**2 * torch.eye(x.size(0)))
        cross = torch.linalg.solve_triangular(factor, gp_covariance(x, z), upper=False)
        mean = cross.mT @ torch.linalg.solve_triangular(factor, y, upper=False)
        std = (1.0 + NOISE**2 - cross.square().sum(0)).sqrt().unsqueeze(1)
        total += float(torch.distributions.Normal(mean, std).log_prob(tasks.y_target[other].double()).sum())
    return total / target[-1]


def train(model: ConvCNP1d, task: str, steps: int, generator: torch.Generator) -> None:
    r"""Maximises the likelihood of the targets on fresh tasks."""
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=max(steps, 2))
    start = time.perf_counter()
    for step in range(1, steps + 1):
        loss = -log_likelihood(model, draw_tasks(task, 16, generator))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 300 == 0:
            print(
                f"step {step:5d}: log-likelihood {-loss.item():6.3f}, {time.perf_counter() - start:.0f} s", flush=True
            )


@torch.no_grad()
def plot(model: ConvCNP1d, task: str, path: str, generator: torch.Generator) -> None:
    r"""Draws the prediction for one function given few and many context points."""
    pyplot = require("matplotlib.pyplot", "viz")
    sizes = (4, 8, 16)
    grid = torch.linspace(LOW, HIGH, 600).unsqueeze(1)
    picked = LOW + (HIGH - LOW) * torch.rand(max(sizes), 1, generator=generator)
    values = FUNCTIONS[task](torch.cat([grid, picked]), generator)
    truth, observed = values[: grid.size(0)], values[grid.size(0) :]
    observed = observed + NOISE * torch.randn(observed.shape, generator=generator)
    figure, axes = pyplot.subplots(1, len(sizes), figsize=(11, 3.2), sharey=True, constrained_layout=True)
    x = grid.squeeze(1)
    for axis, size in zip(axes, sizes, strict=True):
        mean, std = model(
            picked[:size], observed[:size], torch.tensor([0, size]), grid, torch.tensor([0, grid.size(0)])
        )
        mean, std = mean.squeeze(1), std.squeeze(1)
        axis.fill_between(x, mean - 2 * std, mean + 2 * std, color="tab:blue", alpha=0.2, lw=0, label="mean ± 2σ")
        truth_x, truth_y = x.clone(), truth.squeeze(1).clone()
        if task == "sawtooth":
            # A jump is no line.
            truth_y[1:][truth_y.diff().abs() > 1.0] = math.nan
        axis.plot(truth_x, truth_y, color="black", lw=1, ls="--", label="truth")
        axis.plot(x, mean, color="tab:blue", lw=1.8, label="mean")
        axis.plot(picked[:size], observed[:size], "o", color="tab:red", ms=4.5, mec="white", mew=0.6, label="context")
        axis.set(title=f"{size} context points", xlabel="x", xlim=(LOW, HIGH))
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set(ylabel="y")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    with atomic_path(path) as tmp:
        figure.savefig(tmp, dpi=110)
    pyplot.close(figure)


def main(arguments: list[str] | None = None) -> None:
    r"""Trains, prints the log-likelihoods on held-out tasks and writes the plot."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--task", choices=sorted(FUNCTIONS), default="sawtooth")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="convcnp_1d.png", help="where the plot goes")
    options = parser.parse_args(arguments)

    # Weights are drawn from the global generator, as everywhere in torch; a fork leaves the caller's state alone.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        model = ConvCNP1d()
    training, held_out, picture = (torch.Generator().manual_seed(3 * options.seed + i) for i in range(3))
    tasks = draw_tasks(options.task, 256, held_out)
    with torch.no_grad():
        before = log_likelihood(model, tasks).item()
    train(model, options.task, options.steps, training)
    with torch.no_grad():
        after = log_likelihood(model, tasks).item()
    print(f"held-out log-likelihood a target: {before:.3f} before, {after:.3f} after training")
    if options.task == "gp":
        print(f"the Gaussian process that drew the tasks: {gp_oracle(tasks):.3f}")
    plot(model, options.task, options.output, picture)


if __name__ == "__main__":
    main()
