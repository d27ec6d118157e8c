"""The conformance suite of features passes on every space of the package, and fails on features with a fault."""

from __future__ import annotations

import pytest

from pyg_nas_np.features import MetaFeatures
from pyg_nas_np.features.testing import FeaturesTestCase
from pyg_nas_np.spaces import MobileNetV3Space, NASBench101Space, NASBench201Space, NASBenchGraphSpace
from tests.conftest import ToySpace


class TestNASBench201(FeaturesTestCase):
    def make_space(self):
        return NASBench201Space()


class TestNASBench101(FeaturesTestCase):
    def make_space(self):
        return NASBench101Space()


class TestNASBenchGraph(FeaturesTestCase):
    def make_space(self):
        return NASBenchGraphSpace()


class TestToy(FeaturesTestCase):
    def make_space(self):
        return ToySpace()


class TestMobileNetV3(FeaturesTestCase):
    def make_space(self):
        return MobileNetV3Space()


class Infinite(MetaFeatures):
    def table(self, archs=None):
        return super().table(archs) / 0


class Constant(MetaFeatures):
    def table(self, archs=None):
        return super().table(archs).mul(0)


@pytest.mark.parametrize("broken", [Infinite, Constant])
def test_faults_are_found(broken, toy_space):
    archs = toy_space.sample(12)
    with pytest.raises(AssertionError):
        FeaturesTestCase().test_features_are_finite_vary_and_agree_with_those_by_index(
            toy_space, archs, [broken(toy_space)]
        )
