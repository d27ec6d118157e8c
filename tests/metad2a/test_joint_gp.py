from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pyg_nas_np.features import shared_descriptors
from pyg_nas_np.metad2a import FeatureSets, MetaD2ADatabase
from pyg_nas_np.metad2a.joint_gp import CELL_LENGTH, CLASS_LENGTHS, JointGP
from pyg_nas_np.metad2a.pair_regressor import class_directions
from pyg_nas_np.spaces.registry import space_by_name

SPACE = space_by_name("nasbench201")


def make(count: int, classes: int = 40, size: int = 5, noise: float = 0.5, seed: int = 0) -> MetaD2ADatabase:
    """Accuracies as the sum of a cell effect, a class effect and noise."""
    generator = torch.Generator().manual_seed(seed)
    pool = torch.randn(classes, 12, generator=generator)
    effect = 6.0 * torch.nn.functional.normalize(pool, dim=1)[:, :2].sum(dim=1)
    datasets = torch.stack([torch.randperm(classes, generator=generator)[:size] for _ in range(count // 2)])
    dataset = torch.randint(count // 2, (count,), generator=generator)
    arch = torch.randint(60, (count,), generator=generator) * 251
    worth = shared_descriptors(SPACE).table(arch)[:, shared_descriptors(SPACE).groups["trend"]].squeeze(1)
    accuracy = 60 + 5 * worth + effect[datasets[dataset]].mean(dim=1) + noise * torch.randn(count, generator=generator)
    return MetaD2ADatabase(
        SPACE,
        FeatureSets.from_datasets([pool.split(1)]),
        datasets.flatten(),
        torch.arange(count // 2 + 1) * size,
        dataset,
        arch,
        accuracy.double(),
        torch.zeros(count, dtype=torch.bool),
    )


def predict(gp: JointGP, database: MetaD2ADatabase) -> tuple[Tensor, Tensor]:
    datasets, of = database.dataset.unique(return_inverse=True)
    mean, std = gp.predict(database.sets(datasets), of, shared_descriptors(SPACE).table(database.arch))
    assert std is not None
    return mean, std


def kernel(gp: JointGP, a: MetaD2ADatabase, b: MetaD2ADatabase) -> Tensor:
    """The covariance of the model between tuples, term by term from its definition."""
    groups, variances = shared_descriptors(SPACE).groups, gp.hyperparameters
    x, y = (shared_descriptors(SPACE).table(part.arch).double() for part in (a, b))
    total = torch.zeros(len(a), len(b), dtype=torch.float64)
    for name in ("live", "paths", "strings"):
        columns = groups[name]
        r = math.sqrt(3) * torch.cdist(x[:, columns], y[:, columns]) / math.sqrt(len(columns)) / CELL_LENGTH
        radial = (1 + r) * torch.exp(-r)
        total += variances[name] * radial
        if name == "live":
            first = radial
    total += variances["networks"] * x[:, groups["networks"]] @ y[:, groups["networks"]].t()
    classes = [
        [(class_directions(rows, torch.arange(6)) @ gp.projection).double() for rows in features]
        for features in ([part.sets([int(t)]).features for t in part.dataset] for part in (a, b))
    ]
    for i, own in enumerate(classes[0]):
        for j, other in enumerate(classes[1]):
            total[i, j] += variances["interaction"] * first[i, j] * 5 * own.mean(dim=0) @ other.mean(dim=0)
            for length in CLASS_LENGTHS:
                near = torch.exp(-0.5 * (torch.cdist(own, other) / length).square())
                total[i, j] += variances[f"classes_{length}"] * 5 * near.mean()
    return total


def test_the_mean_is_the_exact_posterior_of_the_model() -> None:
    database = make(40)
    past, new = database[:30], database[30:]
    gp = JointGP(width=6, max_iter=5).fit(past)
    covariance = kernel(gp, past, past) + gp.hyperparameters["noise"] * torch.eye(30).double()
    z = (past.accuracy - past.accuracy.mean()) / past.accuracy.std()
    expected = past.accuracy.mean() + past.accuracy.std() * kernel(gp, new, past) @ covariance.inverse() @ z
    torch.testing.assert_close(predict(gp, new)[0].double(), expected, atol=1e-3, rtol=1e-4)


def test_it_learns_the_effects_of_cells_and_classes() -> None:
    new = make(500)
    split = new.split_by_dataset(5, 0)
    gp = JointGP(width=12).fit(new[split.train])
    mean, std = predict(gp, new[split.test])
    truth = new[split.test].accuracy
    assert torch.corrcoef(torch.stack([mean.double(), truth]))[0, 1] > 0.95
    z = (truth - mean) / std
    assert 0.6 < float(z.std()) < 1.6


def test_the_variance_grows_away_from_what_was_seen() -> None:
    database = make(200)
    gp = JointGP(width=12).fit(database)
    cells = shared_descriptors(SPACE).table(database.arch[:1])
    known = database.sets(database.dataset[:1])
    one_class = FeatureSets.from_datasets([[-known.features[:1]]])
    first = torch.zeros(1, dtype=torch.long)
    assert gp.predict(one_class, first, cells)[1] > gp.predict(known, first, cells)[1]


def test_files_keep_all_that_predictions_need() -> None:
    database = make(60)
    gp = JointGP(width=6, max_iter=5).fit(database)
    again = JointGP().load_state_dict(gp.state_dict(), SPACE)
    for found, expected in zip(predict(again, database), predict(gp, database), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)
    # Nothing in the file is as long as the data.
    assert all(len(database) not in value.shape for value in gp.state_dict().values())


def test_a_second_fit_forgets_the_first_database() -> None:
    first, second = make(60), make(80, seed=1)
    gp = JointGP(width=6, max_iter=5).fit(first)
    predict(gp, first)  # computes what standard deviations need
    fresh = JointGP(width=6, max_iter=5).fit(second)
    for found, expected in zip(predict(gp.fit(second), first), predict(fresh, first), strict=True):
        torch.testing.assert_close(found, expected)
    predict(gp, first)
    gp.load_state_dict(JointGP(width=6, max_iter=5).fit(first).state_dict(), SPACE)
    restored = predict(JointGP().load_state_dict(gp.state_dict(), SPACE), second)
    for found, expected in zip(predict(gp, second), restored, strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("count", [1, 3])
def test_data_sets_do_not_see_each_other(count: int) -> None:
    database = make(60)
    gp = JointGP(width=6, max_iter=5).fit(database)
    mean, std = predict(gp, database)
    part = database[torch.arange(count)]
    torch.testing.assert_close(predict(gp, part)[0], mean[:count], rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(predict(gp, part)[1], std[:count], rtol=1e-4, atol=1e-3)
