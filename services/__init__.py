"""Serving: the embedding server, the ranking server, their client."""
