"""What both servers have in common: errors, logs, metrics, binding, health, reflection, stopping."""
