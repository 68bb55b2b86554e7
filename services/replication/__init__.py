"""Replicas of an embedding store on other hosts, kept up to date through Redis."""
