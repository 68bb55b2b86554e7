"""The embedding server: item text in, vectors into the store."""
