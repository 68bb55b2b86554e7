"""``llmgr explain``: a run's ranker, opened to be looked into, and its explanations as tables, JSON and plots."""
