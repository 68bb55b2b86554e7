"""Why an item is recommended, and what it is near to.

Everything here looks at a ranker as requests meet it: a ``Snapshot`` ranks, and its scores are taken apart or ranked again with
something left out.
"""
