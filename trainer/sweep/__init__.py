"""The search for a backbone's best settings: an Optuna study whose every trial is a pre-training run."""
