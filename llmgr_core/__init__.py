"""What training and serving share: catalogue, sessions, graphs, models, engine, store, bundle, evaluation."""

__version__ = "0.1.0"
