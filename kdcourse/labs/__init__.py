"""What the lessons train and read: assets, datasets, models, experiments and their results, metrics, figures."""
