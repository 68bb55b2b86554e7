"""Two-stage tuning of the language model, and the tuned model as a teacher."""
