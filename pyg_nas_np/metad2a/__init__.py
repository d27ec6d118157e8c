r"""From images to architectures (MetaD2A), whole: database, features, generator, predictor, trainings, search."""

from pyg_nas_np.metad2a.backbone import EfficientNetLite0
from pyg_nas_np.metad2a.database import FeatureSets, MetaDataset, build_meta_dataset
from pyg_nas_np.metad2a.database_reader import read_metad2a
from pyg_nas_np.metad2a.generator import MetaD2AGenerator
from pyg_nas_np.metad2a.image_features import ImageFeatures
from pyg_nas_np.metad2a.meta_regressor import MetaRegressor
from pyg_nas_np.metad2a.predictor import MetaPerformancePredictor
from pyg_nas_np.metad2a.search import Candidate, MetaD2A

__all__ = [
    "Candidate",
    "EfficientNetLite0",
    "FeatureSets",
    "ImageFeatures",
    "MetaD2A",
    "MetaD2AGenerator",
    "MetaDataset",
    "MetaPerformancePredictor",
    "MetaRegressor",
    "build_meta_dataset",
    "read_metad2a",
]
