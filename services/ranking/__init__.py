"""The ranking server: answers RankSession from a table in memory, and follows the embedding store.

Nothing in here imports transformers, peft or pyarrow: a ranking host does not have them.
"""
