r"""A meta-trained convolutional neural process behind the estimator interface."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Self

from pyg_nas_np.convnp.auxiliary import auxiliary_scores, check_foreign
from pyg_nas_np.convnp.bank import Bank, expected, mixture
from pyg_nas_np.convnp.bank_predictor import bank_of
from pyg_nas_np.convnp.cell_bank import AUXILIARY, ENCODED, LEADING_COORDINATES, LEVEL, SHRINKAGE, CellBank, bank_groups
from pyg_nas_np.convnp.encoder import (
    UNIVERSAL,
    PriorEncoder,
    SpaceScores,
    read_encoders,
    shipped_encoders,
    unbiased_scores,
)
from pyg_nas_np.convnp.fidelities import Below, FidelityBank, Measured, above, at_top, positions_of, telling_levels
from pyg_nas_np.convnp.general_bank import GeneralBank
from pyg_nas_np.convnp.stacking import BOOSTING_FROM, NETWORKS_FROM, Stacking
from pyg_nas_np.convnp.weights import read_weights, shipped_model, shipped_weights
from pyg_nas_np.features import Descriptors, SpaceDescriptors, shared_descriptors
from pyg_nas_np.features.descriptors import NETWORKS, TREND
from pyg_nas_np.features.space import SCORES, SCORES_SHARE
from pyg_nas_np.nn import Task, TaskBatch
from pyg_nas_np.nn.convnp import ConvNP
from pyg_nas_np.predictors.fidelity import Fidelity
from pyg_nas_np.predictors.inputs import Architectures, ArchitecturesLike, as_architectures, labels_of, maximize_of
from pyg_nas_np.predictors.joint import JointSamples
from pyg_nas_np.predictors.labels import Labels, LabelScale, check_deviations, known_ranks, robust_scores
from pyg_nas_np.spaces import CellSpace, SearchSpace, space_by_name
from pyg_nas_np.spaces.base import require_cells, require_index
from pyg_nas_np.spaces.described import has_graphs
from pyg_nas_np.utils import (
    DataFileError,
    InvalidArchitectureError,
    InvalidFidelityError,
    InvalidLabelsError,
    as_device,
    drawing_from,
    map_chunks,
    on_device,
    seeded,
)
from pyg_nas_np.utils.defaults import fixed_defaults

CHUNK = {"cpu": 1 << 12, "cuda": 1 << 14}
"""Cells predicted at a time; on a CPU their states fit into the cache."""

DISAGREEMENT = (20, 100)
"""Numbers of labels between which the added variance of the base predictors falls linearly from all of it to none."""

ENCODED_SHARE = 0.5
"""Part of the prior trend that is the encoder's score, the rest is sizes and depth."""

_SAMPLES = 16


def process_inputs(descriptors: Descriptors) -> list[int]:
    r"""Returns the columns of descriptors that the process sees: meta-features and the leading network coordinates."""
    groups = descriptors.groups
    meta = [column for name, part in groups.items() if name not in (NETWORKS, TREND) for column in part]
    return [*meta, *groups[NETWORKS][:LEADING_COORDINATES]]


class ConvNPPredictor(JointSamples):
    r"""Ranks a search space from a few labels by a meta-trained convolutional neural process.

    This holds for cells of a space whose weights are shipped or given. On any other space the predictor works at once
    too, as the equal mean of the bank that suits the space: a :class:`~pyg_nas_np.convnp.general_bank.GeneralBank` on
    parameters, layers, graphs of operations and costs, or a :class:`~pyg_nas_np.convnp.cell_bank.CellBank` on cells.
    The rest is about the process.

    The labelled architectures are the context. A :class:`~pyg_nas_np.convnp.bank.Bank` of base predictors is fitted to
    it. A stack of set convolutions, meta-trained on synthesised tasks, takes the bank's leave-one-out errors on the
    context and its predictions of the targets as input channels; it weights the base predictors and corrects their
    mean. Fitting changes no weight of the network, unless :obj:`finetune_steps` is positive. From 100 labels on, the
    mean is stacked with learners that need more data (:class:`~pyg_nas_np.convnp.stacking.Stacking`); the standard
    deviation remains that of the process.

    Where architectures are graphs, an encoder that was trained on measurements of other spaces scores them
    (:class:`~pyg_nas_np.convnp.encoder.Encoders`). The labels set how far the bank follows it.

    Labels may be of cheaper trainings too (:obj:`fidelity`). The bank then is one of architectures and levels, fitted
    to the labels of all of them (:class:`~pyg_nas_np.convnp.fidelities.FidelityBank`); from the lowest level up, a
    predictor of the same kind is fitted to each, for the trees of the next. Predictions are of the last level; without
    labels there that differ they continue what changes between the levels below, on the scale of the best level that
    has some.

    Without labels, architectures rank by what accuracies are expected to follow: the encoder's score, sizes and depth,
    or the auxiliary labels.

    Args:
        space: The search space. (default: that of the data set)
        maximize: Whether larger labels are better. (default: as the data set says, otherwise true)
        labels: How labels become scores, see :data:`~pyg_nas_np.predictors.labels.LabelScale`.
        weights: File written by :func:`~pyg_nas_np.convnp.training.pretrain`. (default: those that the package
            ships for the space; where there are none, the bank alone)
        fidelity: Levels of cheaper trainings, for labels of several levels. (default: every label is of a full one)
        encoder: ``"universal"``: of the encoders that the package ships, the one that has not seen the space;
            a file of :func:`~pyg_nas_np.convnp.encoder_training.pretrain_encoder`: its first encoder; :obj:`None`:
            none. Auxiliary labels of the same cells say more, so that none is asked beside them.
        finetune_steps: Gradient steps on random splits of the context; needs 8 labels.
        stacking: Whether to stack the process with boosted trees from 100 labels on, and with trained graph networks
            from 150 on; the latter take tens of seconds.
        shrinkage: With auxiliary labels, the predicted difference from them is multiplied by n / (n + shrinkage).
            Without it, few random labels make the ranking worse. Use 0 in a search.
        device: Where predictions are computed, by the bank, the process and what is stacked, and where the encoder and
            the stacked networks run: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, or ``"auto"`` for CUDA where there is a
            device. The bank is fitted on the CPU, where arguments, descriptors and predictions are. A saved predictor
            holds no device: ``load(path).set_params(device="cuda:1")`` chooses another.
        random_state: Seed of the splits, of the learners and of samples.
        warm_start: Whether :meth:`fit` starts from the one before, for labels that come one after the other. From
            :data:`~pyg_nas_np.convnp.bank.WARM_FROM` labels on, the search for hyperparameters of the bank starts from
            those found before; graph networks are trained anew for every tenth label more only
            (:meth:`Stacking.fit <pyg_nas_np.convnp.stacking.Stacking.fit>`).

    Raises:
        ValueError: From :meth:`fit`, if :obj:`shrinkage` is negative or :obj:`device` unknown.
        DeviceUnavailableError: From :meth:`fit` and :meth:`predict`, if this machine has no such device.

    Example:
        >>> import torch
        >>> from pyg_nas_np.spaces import NASBench201Space
        >>> space = NASBench201Space()
        >>> context, y = space.batch_encode(torch.arange(5)), torch.tensor([82.0, 90.8, 81.9, 91.0, 85.3])
        >>> mean, std = ConvNPPredictor(space).fit(context, y).predict(space.batch_encode(), return_std=True)
        >>> mean.shape, bool((std > 0).all())
        (torch.Size([15625]), True)
    """

    auxiliary_ = torch.empty(0)
    """Scores of the auxiliary labels of ``T`` data sets in the last fit, raw and smoothed, ``[A, 2T]``."""

    scores_ = torch.empty(0)
    """Gaussian scores of the ranks of ``S`` zero-cost scores of the last fit, ``[A, S]``."""

    encoded_: SpaceScores | PriorEncoder | None = None
    """Scores by an encoder that was trained on other spaces; of a predictor from a file that has not met its space yet,
    the encoder."""

    label_std_: Tensor | None = None
    """Known standard deviations of the labels of the last fit, ``[n]``."""

    variances_: Tensor | None = None
    """Their squares on the scale of the scores."""

    below_: ConvNPPredictor | None = None
    """What was fitted to the labels of the levels below."""

    _labels_below: Below | None = None

    missing_ = 0
    """Number of levels above the best one whose labels differ."""

    has_prior = True

    def __init__(
        self,
        space: SearchSpace[Any] | None = None,
        *,
        maximize: bool | None = None,
        labels: LabelScale = "auto",
        weights: str | os.PathLike[str] | None = None,
        fidelity: Fidelity | None = None,
        encoder: str | os.PathLike[str] | None = UNIVERSAL,
        finetune_steps: int = 0,
        stacking: bool = True,
        shrinkage: float = SHRINKAGE,
        device: str = "auto",
        random_state: int = 0,
        warm_start: bool = False,
    ) -> None:
        super().__init__(space, maximize=maximize, labels=labels)
        self.weights = weights
        self.fidelity = fidelity
        self.encoder = encoder
        self.finetune_steps = finetune_steps
        self.stacking = stacking
        self.shrinkage = shrinkage
        self.device = device
        self.random_state = random_state
        self.warm_start = warm_start

    @classmethod
    def from_pretrained(cls, name: str, **params: Any) -> Self:
        r"""Returns a predictor with shipped weights.

        Args:
            name: ``"universal"``: the encoders for any space; ``"nasbench201"``, ``"nasbench101"`` or
                ``"nasbench-graph"``: these and the process for the space.
            params: Further arguments of the constructor.

        Raises:
            ValueError: If there is no such space.
            MissingWeightsError: If the package ships no weights for it.

        Example:
            >>> ConvNPPredictor.from_pretrained("nasbench201").space
            NASBench201Space(15625, dataset='cifar10')
            >>> ConvNPPredictor.from_pretrained("universal", maximize=False)
            ConvNPPredictor(maximize=False)
        """
        if name == UNIVERSAL:
            shipped_encoders()
            return cls(**params, encoder=UNIVERSAL)
        space = space_by_name(name)
        shipped_model(space)
        return cls(space, **params)

    # -- fitting ----------------------------------------------------------------------------------------------------

    @fixed_defaults
    def fit(
        self,
        x: ArchitecturesLike,
        y: Labels | None = None,
        auxiliary: Mapping[str, Tensor] | None = None,
        scores: Mapping[str, Tensor] | None = None,
        y_std: Labels | None = None,
        fidelity: Labels | None = None,
        curves: Tensor | Sequence[Sequence[float]] | None = None,
    ) -> Self:
        r"""Conditions the process on labelled architectures.

        A fit that fails leaves the predictor as it was.

        Args:
            x: ``n`` architectures; none for the prior ranking. The same one may occur at several levels, and more than
                once at each.
            y: Their labels, ``[n]``. (default: those that the data set or the graphs carry)
            auxiliary: Auxiliary labels of the whole space, name (``dataset/metric``) → ``[A]`` in official order.
                Labels whose name is that of the data set to predict are refused.
            scores: Zero-cost scores of the whole space, of which larger ones are supposed to be better: name → ``[A]``
                in official order; NaN and infinite ones stand at the mean. Spaces of your own declare theirs
                (``ParameterSpace(..., scores=...)``).
            y_std: Standard deviation of each label that is known, ``[n]``: of repeats, or of the mean of some. The
                Gaussian processes of the bank add it to the noise that they estimate; trees do not see it. The process
                sees it if it has a channel for it (``noise_channel`` of :class:`~pyg_nas_np.nn.ConvNP`); those that the
                package ships have none. (default: 0)
            fidelity: Level of each label, ``[n]``, such as ``[12, 12, 200]``. (default: the last)
            curves: Instead of :obj:`y`, the values after each epoch, ``[n, E]``; NaN from where a training was stopped,
                and where nothing was measured. Each gives a label at every level that it has reached.

        Raises:
            InvalidLabelsError: If a label is NaN or infinite, there is not one an architecture, auxiliary labels or
                scores do not cover the space, a score does not vary, a standard deviation is negative, a level is
                unknown, or curves end before the first level.
            InvalidFidelityError: If there are levels or curves, but the predictor has no :obj:`fidelity`.
            InvalidArchitectureError: If something is not an architecture of the space, or the space is not known.
        """
        before = self.__dict__.copy()
        as_device(self.device)
        archs = as_architectures(x, self.space)
        try:
            if curves is None:
                values = self._check_labels(labels_of(x) if y is None else y, len(archs))
                position = positions_of(self, self.fidelity, fidelity, len(archs))
            else:
                row, values, position = self._curve_labels(curves, len(archs), y, y_std, fidelity)
                archs = archs[row]
            std = None if y_std is None else check_deviations(y_std, values)
            maximize = maximize_of(x) if self.maximize is None else self.maximize
            if auxiliary:
                check_foreign(auxiliary, str(getattr(x, "dataset", "")))
            self._fit_levels(archs, values, position, std, auxiliary, scores, maximize)
        except BaseException:
            self.__dict__ = before
            raise
        return self

    def _curve_labels(
        self, curves: Tensor | Sequence[Sequence[float]], count: int, *others: Labels | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        if self.fidelity is None:
            raise InvalidFidelityError(
                "curves are labels at levels; take ConvNPPredictor(fidelity=Fidelity('epochs', (1, 5, 20)))"
            )
        if any(other is not None for other in others):
            raise InvalidLabelsError("curves stand for y, y_std and fidelity; give either them or these")
        return self.fidelity.labels_of_curves(curves, count)

    def _fit_levels(
        self,
        archs: Architectures,
        values: Tensor,
        position: Tensor,
        std: Tensor | None,
        auxiliary: Mapping[str, Tensor] | None,
        scores: Mapping[str, Tensor] | None,
        maximize: bool,
    ) -> None:
        """The levels from the lowest up: each is fitted with what was fitted to those below it."""
        telling = telling_levels(values, position)
        last, lower = (telling[-1], telling[:-1]) if telling else (0, [])
        self.below_ = None
        if lower:
            rows = torch.isin(position, torch.tensor(lower))
            self.below_ = self.__sklearn_clone__()
            self.below_._fit_levels(
                archs[rows],
                values[rows],
                position[rows],
                None if std is None else std[rows],
                auxiliary,
                scores,
                maximize,
            )
        rows = position == last
        self.missing_ = 0 if self.fidelity is None or not telling else self.fidelity.top - last
        self.label_std_ = None if std is None else std[rows]
        self.encoded_ = None if auxiliary else self._new_encoded(archs.space)
        self.auxiliary_ = _auxiliary(archs.space, auxiliary) if auxiliary else torch.empty(0)
        self.scores_ = _scores(archs.space, scores) if scores else torch.empty(0)
        self._labels_below = self._find_labels_below(last)
        self._fit_labels(archs[rows], values[rows], maximize)

    def _inputs(self, archs: Architectures) -> tuple[Architectures, Tensor]:
        parts = shared_descriptors(self.space_).parts(archs.given)
        parts += [part[archs.index] for part in (self.auxiliary_, self.scores_) if part.numel()]
        if isinstance(self.encoded_, PriorEncoder):
            self.encoded_ = SpaceScores(self.encoded_, self.space_)
        if self.encoded_ is not None:
            parts.append(self.encoded_(archs.given, as_device(self.device)).unsqueeze(1))
        if self.below_ is not None:
            self.below_.space_, self.below_.device = self.space_, self.device
            assert self._labels_below is not None
            parts.append(self._labels_below.columns(archs, self.below_._known_scores(archs)))
        return archs, torch.cat(parts, dim=1)

    def _find_labels_below(self, position: int) -> Below | None:
        """The labels of all levels below one."""
        labels: list[tuple[int, Tensor, Measured]] = []
        lower = self.below_
        while lower is not None:
            assert lower.fidelity is not None
            own = lower.x_ if lower._labels_below is None else lower.x_[:, : lower._labels_below.width]
            labels.insert(0, (lower.fidelity.top - lower.missing_, own, lower.measured_))
            lower = lower.below_
        return Below(self.fidelity, position, labels) if labels and self.fidelity is not None else None

    def _known_scores(self, archs: Architectures) -> tuple[Tensor, Tensor]:
        """Means and variances of the scores at the best level with labels, exact where it was measured."""
        mean, std = self._predict_level(self._inputs(archs))
        return self.measured_.pin(archs, (mean.double(), std.double().square()))

    def _new_encoded(self, space: SearchSpace[Any]) -> SpaceScores | None:
        if self.encoder is None or not has_graphs(space):
            return None
        if self.encoder == UNIVERSAL:
            return unbiased_scores(space)
        return SpaceScores(read_encoders(self.encoder).priors[0], space)

    def _prior(self, archs: Architectures) -> tuple[Tensor, Tensor]:
        inputs, descriptors = self._inputs(archs)[1], shared_descriptors(self.space_)
        trend, columns = descriptors.prior_trend(inputs), self._groups_given(descriptors)
        if AUXILIARY in columns:
            return expected(inputs[:, columns[AUXILIARY]].mean(dim=1), LEVEL)
        if SCORES in columns:
            trend = torch.lerp(trend, inputs[:, columns[SCORES]].mean(dim=1), SCORES_SHARE)
        if ENCODED in columns:
            trend = torch.lerp(trend, inputs[:, columns[ENCODED]].mean(dim=1), ENCODED_SHARE)
        return expected(trend)

    def _new_bank(self) -> Bank:
        descriptors = shared_descriptors(self.space_)
        if isinstance(descriptors, SpaceDescriptors):
            encoded = self._groups_given(descriptors).get(ENCODED, ())
            return GeneralBank(descriptors.families._replace(encoded=encoded))
        return CellBank(self._groups(descriptors), shrinkage=self.shrinkage)

    def _fit_bank(self, bank: Bank, thetas: Mapping[str, Tensor] | None = None, start: Bank | None = None) -> Bank:
        """The bank on the context and on the labels of the levels below."""
        if self._labels_below is not None:
            bank = FidelityBank(bank, self._labels_below)
        return bank.fit(self.x_, self.z_, thetas, variances=self.variances_, start=start)

    def _groups(self, descriptors: Descriptors) -> dict[str, list[int]]:
        return bank_groups(descriptors) | self._groups_given(descriptors)

    def _groups_given(self, descriptors: Descriptors | SpaceDescriptors) -> dict[str, list[int]]:
        """Columns behind the descriptors: what was given to :meth:`fit`, and the encoder's scores."""
        groups, start = {}, descriptors.num_columns
        for name, part in ((AUXILIARY, self.auxiliary_), (SCORES, self.scores_)):
            if part.numel():
                groups[name] = list(range(start, start + part.size(1)))
                start += part.size(1)
        if self.encoded_ is not None:
            groups[ENCODED] = [start]
        return groups

    def _fit(self, inputs: tuple[Architectures, Tensor], z: Tensor) -> None:
        # A copy, so that later changes of the weight file do not affect a fitted predictor.
        self.model_ = self._find_model()
        self.x_, self.z_ = inputs[1].float(), z.float()
        known = None if self.label_std_ is None else self.transform_.score_std(self.labels_, self.label_std_).square()
        self.variances_ = known if known is not None and bool(known.any()) else None
        self.measured_ = self._measured(inputs[0])
        bank, stacking = (getattr(self, name, None) if self.warm_start else None for name in ("bank_", "stacking_"))
        self.bank_ = self._fit_bank(self._new_bank(), start=bank)
        if self.model_ is None:
            return
        num_meta = len(shared_descriptors(self.space_).features.feature_names)
        self.stacking_ = self._new_stacking(num_meta)
        self._fit_stacking(inputs[0], start=stacking)
        if self.finetune_steps and z.numel() >= 8:
            self.model_ = self._finetune(self.model_)

    def _measured(self, archs: Architectures | Sequence[int | str]) -> Measured:
        return Measured(archs, self.z_, torch.zeros_like(self.z_) if self.variances_ is None else self.variances_)

    def _find_model(self) -> ConvNP | None:
        """The process; none where the bank is all that is known of a space."""
        if self.weights is not None:
            return read_weights(self.weights, require_cells(self.space_))
        if isinstance(self.space_, CellSpace) and self.space_.name in shipped_weights():
            return shipped_model(self.space_)
        return None

    def _new_stacking(self, num_meta: int) -> Stacking:
        count = self.z_.numel()
        return Stacking(
            self.bank_.split_columns,
            num_meta,
            boosting=self.stacking and count >= BOOSTING_FROM,
            # Networks cannot take auxiliary labels as inputs, and these are more informative than the networks.
            networks=self.stacking and count >= NETWORKS_FROM and not self.auxiliary_.numel(),
            device=self.device,
            random_state=self.random_state,
        )

    def _fit_stacking(
        self,
        archs: Architectures | None,
        state: Mapping[str, Any] | None = None,
        start: Stacking | None = None,
    ) -> None:
        prior = self.bank_.prior(self.x_)
        held_out = self.bank_.context[..., 0] - prior.unsqueeze(1)
        self.stacking_.fit(archs, self.x_, self.z_ - prior, held_out, state, start=start)

    def _finetune(self, model: ConvNP) -> ConvNP:
        """A copy after a few steps on splits of the context; the base predictors are refitted to every split."""
        generator, device = seeded(self.random_state), as_device(self.device)
        descriptors = shared_descriptors(require_cells(self.space_))
        seen, groups = process_inputs(descriptors), self._groups(descriptors)
        count = self.z_.numel()
        tasks = []
        for _ in range(8):
            share = 0.5 + 0.35 * float(torch.rand((), generator=generator))
            order = torch.randperm(count, generator=generator)
            context, target = order[: math.ceil(share * count)], order[math.ceil(share * count) :]
            scores = robust_scores(self.z_[context].double()).float()
            known = None if self.variances_ is None else self.variances_[context]
            bank = CellBank(groups, max_iter=30, shrinkage=self.shrinkage)
            bank.fit(self.x_[context], scores, variances=known)
            moments = bank.context, bank.predict(self.x_[target])
            x = self.x_[:, seen]
            noise = None if known is None else known.sqrt().float()
            tasks.append(Task(x[context], scores, x[target], *moments, self.z_[target], noise))
        batch, model = TaskBatch.from_tasks(tasks).to(device), copy.deepcopy(model).to(device)
        assert batch.z_target is not None
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
        for _ in range(self.finetune_steps):
            mean, std = model(batch)
            loss = (0.5 * ((batch.z_target - mean) / std).square() + std.log()).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return model.cpu().eval()

    # -- predicting -------------------------------------------------------------------------------------------------

    def _predict(self, inputs: tuple[Architectures, Tensor], return_std: bool) -> tuple[Tensor, Tensor | None]:
        mean, std = self._predict_level((inputs[0], at_top(inputs[1], self._labels_below)))
        if self.missing_:
            mean, variance = above((mean.double(), std.double().square()), self.missing_)
            std = variance.sqrt()
        return mean, std if return_std else None

    def _predict_level(self, inputs: tuple[Architectures, Tensor]) -> tuple[Tensor, Tensor]:
        """Means and standard deviations of the scores at the best level with labels."""
        device = as_device(self.device)
        archs, x, bank = inputs[0], inputs[1].to(device), self.bank_.on(device)
        if self.model_ is None:
            mean, std = mixture(bank.predict(x))
            return mean.cpu(), std.cpu()
        model = on_device(self.model_, device)
        self.stacking_.run_on(self.device)
        seen = process_inputs(shared_descriptors(require_cells(self.space_)))
        size = CHUNK["cpu" if device.type == "cpu" else "cuda"]
        parts = map_chunks(lambda chunk: self._predict_chunk(model, bank, seen, chunk), x.split(size))
        mean, std = (torch.cat(values) for values in zip(*parts, strict=True))
        prior = bank.prior(x)
        mean = prior + self.stacking_.mean(mean - prior, archs, x)
        return mean.cpu(), std.cpu()

    def _predict_chunk(self, model: ConvNP, bank: Bank, seen: list[int], x: Tensor) -> tuple[Tensor, Tensor]:
        target = bank.predict(x)
        ptr, end = torch.tensor([0, self.z_.numel()]), torch.tensor([0, len(x)])
        noise = None if self.variances_ is None else self.variances_.sqrt().float()
        tasks = TaskBatch(self.x_[:, seen], self.z_, x[:, seen], self.bank_.context, target, ptr, end, noise=noise)
        tasks = tasks.to(x.device)
        if model.latent_channels:
            generator = seeded(self.random_state)
            draws = [model(tasks, None, generator) for _ in range(_SAMPLES)]
            centres, spreads = (torch.stack(values) for values in zip(*draws, strict=True))
            mean = centres.mean(dim=0)
            std = (spreads.square().mean(dim=0) + centres.var(dim=0, unbiased=False)).sqrt()
        else:
            mean, std = model(tasks)
        full, none = DISAGREEMENT
        share = min(1.0, max(0.0, (none - self.z_.numel()) / (none - full))) if model.form == "hybrid" else 0.0
        # The process is overconfident in its weights: the bank is well specified on the tasks of the meta-training.
        std = (std.square() + share * target[:, :, 0].var(dim=1, unbiased=False)).sqrt()
        return mean, std

    @fixed_defaults
    def predict_quantiles(self, x: ArchitecturesLike, quantiles: Sequence[float] = (0.05, 0.5, 0.95)) -> Tensor:
        r"""Predicts quantiles of new measurements.

        Args:
            x: ``n`` architectures.
            quantiles: ``Q`` numbers between 0 and 1.

        Returns:
            Labels, ``[n, Q]`` float64, increasing along the quantiles.

        Raises:
            ValueError: If a quantile is not between 0 and 1.
        """
        q = torch.tensor(quantiles, dtype=torch.float64)
        if not bool(((q > 0) & (q < 1)).all()):
            raise ValueError(f"quantiles must lie between 0 and 1, got {list(quantiles)}")
        fitted = self._ready()
        mean, std = fitted.predict_scores(x)
        # For labels to minimise, scores decrease as labels increase.
        q = q if fitted.transform_.maximize else 1.0 - q
        scores = mean.unsqueeze(1) + std.unsqueeze(1) * torch.special.ndtri(q)
        return fitted.transform_.inverse(scores)[0]

    @fixed_defaults
    def sample_scores(self, x: ArchitecturesLike, num: int = 1, generator: torch.Generator | None = None) -> Tensor:
        r"""Draws joint samples, see :meth:`JointSamples.sample_scores
        <pyg_nas_np.predictors.JointSamples.sample_scores>`; by default seeded by :obj:`random_state`.

        The correlations are those of one Gaussian process of the bank. Means and standard deviations are those of the
        predictor.
        """
        generator = seeded(self.random_state) if generator is None else generator
        fitted = self._ready()
        mean, std = fitted.predict_scores(x)
        if fitted.transform_.labelled and not fitted.transform_.informative:
            return mean.expand(num, -1)
        inputs = fitted._inputs(fitted._known(x))[1]
        bank = fitted.bank_ if fitted.transform_.labelled else fitted._new_bank().unlabelled(inputs.size(1))
        gp = bank.gp
        total = gp.predict(inputs)[1]
        assert total is not None
        # The fraction of the standard deviation that is not noise.
        latent = (gp.variance(inputs).clamp_min(0.0)).sqrt() / total
        deviation = bank.sample(inputs, num, generator)
        return mean + std * latent * deviation

    # -- files ------------------------------------------------------------------------------------------------------

    def _plain_params(self) -> dict[str, Any]:
        params = super()._plain_params()
        paths = {"weights": self.weights, "encoder": self.encoder}
        params |= {name: None if path is None else os.fspath(path) for name, path in paths.items()}
        return params | {"fidelity": None if self.fidelity is None else self.fidelity.to_dict()}

    @classmethod
    def _from_plain_params(cls, space: SearchSpace[Any] | None, params: dict[str, Any]) -> Self:
        declared = params.pop("fidelity", None)
        return cls(space, **params, fidelity=None if declared is None else Fidelity(**declared))

    def _state(self) -> dict[str, Any]:
        state = {
            "x": self.x_,
            "z": self.z_,
            **self._prior_state(),
            "columns": self.bank_.columns,
            "thetas": self.bank_.state_dict(),
            "variances": self.variances_,
            "missing": self.missing_,
            "joint below": None if self.below_ is None else self.below_._whole_state(),
            "keys": self.measured_.written() if self.fidelity is not None else [],
        }
        if self.model_ is None:
            return state
        return state | {
            "num_meta": self.stacking_.num_meta,
            "networks": self.stacking_.state_dict(),
            "config": self.model_.config,
            "in_channels": self.model_.in_channels,
            "model": self.model_.state_dict(),
        }

    def _prior_state(self) -> dict[str, Any]:
        encoder = self.encoded_.encoder if isinstance(self.encoded_, SpaceScores) else self.encoded_
        state = {} if encoder is None else encoder.state_dict()
        return {"auxiliary": self.auxiliary_, "scores": self.scores_, "encoder": state}

    def _set_prior_state(self, state: dict[str, Any]) -> None:
        self.auxiliary_, self.scores_, self.encoded_ = state["auxiliary"], state["scores"], None
        if state["encoder"]:
            self.encoded_ = PriorEncoder.from_state(state["encoder"])

    def _set_state(self, state: dict[str, Any]) -> None:
        self._set_prior_state(state)
        self.x_, self.z_ = state["x"], state["z"]
        self.variances_ = state.get("variances")
        self.missing_, self.measured_ = state.get("missing", 0), self._measured(state.get("keys", []))
        if state.get("below") is not None:
            raise DataFileError("version 0.2.0 had another model of levels; fit and save it again")
        if (below := state.get("joint below")) is not None:
            self.below_ = self._of_whole_state(below, self.space)
            assert self.fidelity is not None
            self._labels_below = self._find_labels_below(self.fidelity.top - self.missing_)
        self.bank_ = self._fit_bank(bank_of(state["columns"], shrinkage=self.shrinkage), state["thetas"])
        self.model_ = None
        if "model" not in state:
            return
        self.stacking_ = self._new_stacking(state["num_meta"])
        self._fit_stacking(None, state["networks"])
        with drawing_from(torch.Generator(device="cpu")):
            self.model_ = ConvNP(state["in_channels"], **state["config"]).eval()
        self.model_.load_state_dict(state["model"])


def _auxiliary(space: SearchSpace[Any], auxiliary: Mapping[str, Tensor]) -> Tensor:
    """Scores of the auxiliary labels over the whole space, raw and smoothed, ``[A, 2T]``."""
    for name, values in auxiliary.items():
        _check_whole(f"auxiliary[{name!r}]", values, space)
    count = len(require_index(space))
    descriptors = shared_descriptors(require_cells(space))
    columns = CellBank(bank_groups(descriptors)).split_columns
    return auxiliary_scores(descriptors.table(torch.arange(count))[:, columns], list(auxiliary.values()))


def _scores(space: SearchSpace[Any], scores: Mapping[str, Tensor]) -> Tensor:
    """Gaussian scores of the ranks of zero-cost scores over the whole space, 0 where one is not known, ``[A, S]``."""
    if not isinstance(space, CellSpace):
        raise InvalidArchitectureError(
            f"scores= of fit are for cells of a benchmark; declare those of {space.name} as scores= of the space"
        )
    columns = []
    for name, given in scores.items():
        values = torch.as_tensor(given).to("cpu", torch.float64)
        _check_whole(f"scores[{name!r}]", values, space)
        if values[values.isfinite()].unique().numel() < 2:
            raise InvalidLabelsError(f"scores[{name!r}] does not vary over {space.name}; leave it out")
        columns.append(known_ranks(values))
    return torch.stack(columns, dim=1).float()


def _check_whole(what: str, values: Tensor, space: SearchSpace[Any]) -> None:
    count = len(require_index(space))
    if values.shape != (count,):
        raise InvalidLabelsError(
            f"{what} has shape {list(values.shape)}; one number for each of the {count} architectures of {space.name} "
            f"is needed"
        )
