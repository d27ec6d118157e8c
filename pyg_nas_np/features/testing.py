r"""The test suite of the features of a search space, as a class to subclass, beside that of the space itself.

Example:
    >>> from pyg_nas_np.spaces import NASBench201Space
    >>> class TestFeaturesOfNASBench201(FeaturesTestCase):
    ...     def make_space(self):
    ...         return NASBench201Space()
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pyg_nas_np.features.meta import MetaFeatures
from pyg_nas_np.features.random_networks import RandomNetworks
from pyg_nas_np.spaces.testing import Space, SpaceFixtures, renumbered, seeded
from pyg_nas_np.utils import SpaceTooLargeError


class FeaturesTestCase(SpaceFixtures):
    r"""Checks that meta-features and random networks are finite and depend only on the architecture.

    Skipped for spaces that are too large to be enumerated.
    """

    @pytest.fixture
    def tables(self, space: Space) -> list[MetaFeatures | RandomNetworks]:
        r"""Both kinds of features of the space."""
        try:
            len(space)
        except SpaceTooLargeError:
            pytest.skip(f"{space.name} is too large to be enumerated")
        return [MetaFeatures(space), RandomNetworks(space, num_functions=16, rank=8)]

    def test_features_are_finite_vary_and_agree_with_those_by_index(
        self, space: Space, archs: list[Any], tables: list[MetaFeatures | RandomNetworks]
    ) -> None:
        index = self.indices(space, archs)
        for features in tables:
            table = features.table(archs)
            torch.testing.assert_close(features.table(index), table, rtol=1e-4, atol=1e-4)
            assert table.dtype == torch.float32
            assert table.size(0) == len(archs)
            assert bool(table.isfinite().all())
            assert table.unique(dim=0).size(0) > 1

    def test_features_do_not_depend_on_the_order_of_nodes(
        self, space: Space, archs: list[Any], tables: list[MetaFeatures | RandomNetworks]
    ) -> None:
        same = [space.decode(renumbered(space.encode(arch), seeded(seed))) for seed, arch in enumerate(archs)]
        for features in tables:
            torch.testing.assert_close(features.table(same), features.table(archs), rtol=1e-4, atol=1e-4)
