"""Training: pre-training, two-stage tuning, distillation, evaluation."""
