"""Files of datasets, models, checkpoints and uploads."""
