"""What training and serving share: catalogue, sessions, graphs, models, engine, store, bundle, evaluation."""

from llmgr_core.import_names import require_own_kernels

__version__ = "0.1.0"

require_own_kernels()
