r"""From images to architectures (MetaD2A): database, features, generator, predictor, trainings, search."""

from typing import TYPE_CHECKING

from pyg_nas_np.utils.lazy import attach

if TYPE_CHECKING:
    from pyg_nas_np.metad2a.backbone import EfficientNetLite0
    from pyg_nas_np.metad2a.database import FeatureSets, MetaD2ADatabase, build_database
    from pyg_nas_np.metad2a.generator import MetaD2AGenerator
    from pyg_nas_np.metad2a.image_features import ImageFeatures
    from pyg_nas_np.metad2a.pair_regressor import PairRegressor
    from pyg_nas_np.metad2a.predictor import MetaD2APredictor
    from pyg_nas_np.metad2a.reader import read_database
    from pyg_nas_np.metad2a.search import Candidate, MetaD2A

__all__ = [
    "Candidate",
    "EfficientNetLite0",
    "FeatureSets",
    "ImageFeatures",
    "MetaD2A",
    "MetaD2ADatabase",
    "MetaD2AGenerator",
    "MetaD2APredictor",
    "PairRegressor",
    "build_database",
    "read_database",
]

attach(__name__)
