r"""The convolutional neural process over architectures, in three forms."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from pyg_nas_np.nn.off_grid import OffGridProcess
from pyg_nas_np.nn.on_grid import OnGridProcess
from pyg_nas_np.nn.task_batch import TaskBatch

Form = Literal["hybrid", "off-grid", "on-grid"]
"""``"on-grid"``: learned coordinates, a grid and a convolutional network; ``"off-grid"``: stacked set convolutions in
learned embeddings; ``"hybrid"``: off-grid, with the output as a correction of a learned mixture of base predictors."""


MAX_RATIO = 3.0
"""Largest ratio of the weights of two base predictors, if not said otherwise."""

MAX_SHIFT = 0.1
"""Largest shift of a mixture of base predictors, in standard deviations, if not said otherwise."""

NOISE_UNIT = 0.5
"""Known standard deviation at which a score of the context counts half, in standard deviations of the scores."""

FREE_CONTEXT = 20
"""Size of the context from which the bounds of ratio and shift decrease in proportion to 1 / n."""


class ConvNP(nn.Module):
    r"""A convolutional neural process: context in, a Gaussian for every target out.

    In the hybrid form, the inputs of the context are scores and the base predictors' leave-one-out moments, those of
    the targets are base predictions, and both include statistics of the leave-one-out errors in the task
    (:func:`evidence`). The output is a mixture of the base predictions with learned weights, shifted and scaled by a
    learned correction. Before training the correction is zero and the weights are equal, so the output is the mean of
    the base predictions. Inputs of the other two forms are features and scores only.

    With :obj:`noise_channel`, the known noise of each score of the context (:attr:`TaskBatch.noise
    <pyg_nas_np.nn.TaskBatch.noise>`) is a channel of the set convolutions, beside a copy of the other channels that
    is weighted by the part of the variance that is noise, and errors of noisy scores count less in the statistics.
    Where the noise is absent or zero, these channels are zero and the process is the one without them.

    Args:
        in_channels: Number ``F`` of features.
        form: See :data:`Form`.
        num_base: Number ``K`` of base predictors (hybrid form).
        channels: Width of the states.
        heads: Kernels per layer, or number of grids.
        dim: Dimensions of each head's embedding (hybrid and off-grid).
        num_layers: Number of layers (hybrid and off-grid).
        grid_dim: Coordinates of each grid, 1 or 2 (on-grid).
        latent_channels: Latent channels per grid cell, 0 for a deterministic process (on-grid).
        max_ratio: Largest ratio of the weights of two base predictors (hybrid).
        max_shift: Largest shift of their mixture, in standard deviations (hybrid).
        noise_channel: Whether the known noise of the context is an input; otherwise it is ignored.

    Shapes:
        - **input:** a :class:`~pyg_nas_np.nn.TaskBatch`.
        - **output:** mean ``[M]`` and standard deviation ``[M]`` of the target scores.

    Raises:
        ValueError: If the form is unknown, or the channels do not divide among the heads.

    Example:
        >>> x, z, moments = torch.randn(6, 3), torch.randn(6), torch.zeros(6, 1, 2)
        >>> ptr_context, ptr_target = torch.tensor([0, 2, 6]), torch.tensor([0, 4, 9])
        >>> tasks = TaskBatch(x, z, torch.randn(9, 3), moments, torch.zeros(9, 1, 2), ptr_context, ptr_target)
        >>> mean, std = ConvNP(3, num_base=1)(tasks)
        >>> mean.shape, bool((std > 0).all())
        (torch.Size([9]), True)
    """

    def __init__(
        self,
        in_channels: int,
        *,
        form: Form = "hybrid",
        num_base: int = 4,
        channels: int = 64,
        heads: int = 8,
        dim: int = 6,
        num_layers: int = 2,
        grid_dim: int = 1,
        latent_channels: int = 0,
        max_ratio: float = MAX_RATIO,
        max_shift: float = MAX_SHIFT,
        noise_channel: bool = False,
    ) -> None:
        super().__init__()
        if form not in get_args(Form):
            raise ValueError(f"form must be one of {', '.join(get_args(Form))}, got {form!r}")
        if channels % heads:
            raise ValueError(f"channels={channels} must be divisible by heads={heads}")
        if latent_channels and form != "on-grid":
            raise ValueError(f"latent_channels={latent_channels} needs form='on-grid', got {form!r}")
        if not (max_ratio >= 1.0 and max_shift >= 0.0):
            raise ValueError(f"max_ratio must be at least 1 and max_shift at least 0, got {max_ratio} and {max_shift}")
        self.config: dict[str, Any] = {
            "form": form,
            "num_base": num_base,
            "channels": channels,
            "heads": heads,
            "dim": dim,
            "num_layers": num_layers,
            "grid_dim": grid_dim,
            "latent_channels": latent_channels,
            "max_ratio": max_ratio,
            "max_shift": max_shift,
        }
        if noise_channel:
            # Configurations of processes without it are those of earlier versions, which can read them.
            self.config["noise_channel"] = True
        self.max_ratio, self.max_shift, self.noise_channel = max_ratio, max_shift, noise_channel
        self.in_channels, self.form, self.num_base = in_channels, form, num_base if form == "hybrid" else 0
        base = self.num_base
        self.embed = nn.Sequential(nn.Linear(in_channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels))
        seen = 1 + 2 * base
        self.embed_context = nn.Linear(2 * seen + 1 if noise_channel else seen, channels)
        if base:
            known = seen + noise_channel
            self.embed_target = nn.Linear(2 * base, channels)
            self.embed_evidence = nn.Linear(known, channels)
            self.weigh = nn.Sequential(nn.Linear(known, channels), nn.GELU(), nn.Linear(channels, base))
        self.process: OffGridProcess | OnGridProcess
        if form == "on-grid":
            self.process = OnGridProcess(channels, heads=heads, grid_dim=grid_dim, latent_channels=latent_channels)
        else:
            self.process = OffGridProcess(channels, heads=heads, dim=dim, num_layers=num_layers)
        self.norm = nn.LayerNorm(channels)
        self.head = nn.Linear(channels, 2)
        self.reset_parameters()

    @property
    def latent_channels(self) -> int:
        r"""Latent channels per grid cell."""
        return self.process.latent_channels if isinstance(self.process, OnGridProcess) else 0

    def reset_parameters(self) -> None:
        r"""Initialises to no correction and equal weights of the base predictors."""
        for module in (*self.embed, self.embed_context, self.process, self.norm):
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()
        if self.num_base:
            self.embed_target.reset_parameters()
            self.embed_evidence.reset_parameters()
            for module in self.weigh:
                if callable(reset := getattr(module, "reset_parameters", None)):
                    reset()
            for parameter in self.weigh[-1].parameters():
                nn.init.zeros_(parameter)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(
        self, tasks: TaskBatch, latent: tuple[Tensor, Tensor] | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        r"""Returns mean and standard deviation of the target scores.

        Args:
            tasks: Context and target sets.
            latent: Gaussian of the latent variables to draw one sample from. (default: that given the context)
            generator: Source of the sample, on any device. (default: PyTorch's)
        """
        h_context, h_target = self._embed(tasks)
        ptrs = tasks.ptr_context, tasks.ptr_target
        if isinstance(self.process, OnGridProcess):
            h_target = self.process(h_context, h_target, *ptrs, latent, generator)
        else:
            h_target = self.process(h_context, h_target, *ptrs)
        shift, stretch = self.head(self.norm(h_target)).unbind(dim=1)
        scale = stretch.clamp(-3.0, 3.0).exp()
        if not self.num_base:
            return shift, scale
        weights = tasks.per_target(self.weights(tasks))
        reach = self.max_shift * tasks.per_target(freedom(tasks))
        base_mean, base_var = tasks.target_moments[..., 0], (2.0 * tasks.target_moments[..., 1]).exp()
        mean = (weights * base_mean).sum(dim=1)
        # Law of total variance over the base predictors.
        std = (weights * (base_var + (base_mean - mean.unsqueeze(1)).square())).sum(dim=1).sqrt()
        return mean + reach * torch.tanh(shift) * std, std * scale

    def weights(self, tasks: TaskBatch) -> Tensor:
        r"""Returns the weights of the base predictors in each task (hybrid form), ``[B, K]``, from :func:`evidence`.

        Their ratios are at most :obj:`max_ratio`, and less with many labels (:func:`freedom`). In synthesised tasks
        the most flexible base predictor is well specified more often than in real ones, so unbounded weights would
        concentrate on it.
        """
        bound = 0.5 * math.log(self.max_ratio) * freedom(tasks).unsqueeze(1)
        return torch.softmax(bound * torch.tanh(self.weigh(self._evidence(tasks))), dim=1)

    def latent(self, tasks: TaskBatch) -> tuple[Tensor, Tensor]:
        r"""Returns mean and log standard deviation of the latent variables given the context, ``[B, Z, *grid]``.

        Raises:
            ValueError: If the process has no latent path.
        """
        if not self.latent_channels:
            raise ValueError(f"a process with form={self.form!r} and latent_channels=0 has no latent variables")
        assert isinstance(self.process, OnGridProcess)
        _, mean, log_std = self.process.latent(self._embed(tasks)[0], tasks.ptr_context)
        return mean, log_std

    def _embed(self, tasks: TaskBatch) -> tuple[Tensor, Tensor]:
        h_context, h_target = self.embed(tasks.x_context), self.embed(tasks.x_target)
        context = tasks.z_context.unsqueeze(1)
        if self.num_base:
            context = torch.cat([context, tasks.context_moments.flatten(1)], dim=1)
        if self.noise_channel:
            level, share = noise_channels(tasks)
            context = torch.cat([context, level.unsqueeze(1), share.unsqueeze(1) * context], dim=1)
        h_context = h_context + self.embed_context(context)
        if not self.num_base:
            return h_context, h_target
        seen = self.embed_evidence(self._evidence(tasks))
        h_target = h_target + self.embed_target(tasks.target_moments.flatten(1))
        return h_context + tasks.per_context(seen), h_target + tasks.per_target(seen)

    def _evidence(self, tasks: TaskBatch) -> Tensor:
        if not self.noise_channel:
            return evidence(tasks)
        level, share = noise_channels(tasks)
        mean = tasks.context_sums(level.unsqueeze(1)) / tasks.ptr_context.diff().clamp_min(1).unsqueeze(1)
        return torch.cat([evidence(tasks, 1.0 - share), mean], dim=1)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, form={self.form!r}, {self.process!r})"


def freedom(tasks: TaskBatch) -> Tensor:
    r"""Returns the fraction of its bounds that the process may use in each task, ``[B]``.

    The result of the meta-training acts as a prior, whose influence must decrease with the number of labels.
    """
    counts = tasks.ptr_context.diff().clamp_min(1).to(tasks.z_context.dtype)
    return (FREE_CONTEXT / counts).clamp_max(1.0)


def noise_channels(tasks: TaskBatch) -> tuple[Tensor, Tensor]:
    r"""Channels of the known noise of the context, zero where none is known.

    Returns:
        ``[N]`` each: the level :math:`\log(1 + s^2 / u^2)` of a standard deviation :math:`s`, with the unit :math:`u`
        of :data:`NOISE_UNIT`, and the share :math:`s^2 / (s^2 + u^2)` of the variance that is noise.

    Example:
        >>> x, z, moments, ptr = torch.zeros(2, 3), torch.zeros(2), torch.zeros(2, 0, 2), torch.tensor([0, 2])
        >>> tasks = TaskBatch(x, z, x, moments, moments, ptr, ptr, noise=torch.tensor([0.0, 0.5]))
        >>> noise_channels(tasks)[1]
        tensor([0.0000, 0.5000])
    """
    noise = torch.zeros_like(tasks.z_context) if tasks.noise is None else tasks.noise.to(tasks.z_context.dtype)
    level = (noise / NOISE_UNIT).square().log1p()
    return level, -(-level).expm1()


def evidence(tasks: TaskBatch, weights: Tensor | None = None) -> Tensor:
    r"""Statistics of the context for each base predictor: leave-one-out errors and densities, and the context's size.

    Args:
        tasks: The tasks.
        weights: Of the scores of the context in both means, ``[N]``. (default: equal)

    Returns:
        ``[B, 1 + 2 K]``: log size of the context, then for every base predictor the log mean squared error and the mean
        log density of the context scores given the others.
    """
    mean, log_std = tasks.context_moments.unbind(dim=2)
    square = (tasks.z_context.unsqueeze(1) - mean).square()
    density = (-0.5 * square * (-2.0 * log_std).exp() - log_std).clamp_min(-10.0)
    counts = tasks.ptr_context.diff().unsqueeze(1)
    values, total = torch.cat([square, density], dim=1), counts.clamp_min(1).to(mean.dtype)
    if weights is not None:
        weights = weights.unsqueeze(1)
        values, total = weights * values, tasks.context_sums(weights).clamp_min(1e-6)
    error, density = (tasks.context_sums(values) / total).chunk(2, dim=1)
    return torch.cat([counts.to(mean.dtype).log1p(), (error + 1e-3).log(), density], dim=1)
