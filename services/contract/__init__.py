"""The public contract as Python: generated from ``proto/llmgr/v1/*.proto`` by generate.py, never edited by hand.

Import modules from here (``from services.contract import embedding_service_pb2``); they import each other relatively, so that
the proto package llmgr.v1 needs no Python package of that name.
"""
