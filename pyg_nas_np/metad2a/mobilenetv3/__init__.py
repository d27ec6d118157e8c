r"""MetaD2A for sub-networks of Once-for-All (MobileNetV3): features, predictor, trainings."""
