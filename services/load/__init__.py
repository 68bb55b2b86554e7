"""Load for both services: who asks what and when, a client that keeps to it whatever the server does, and what came of it.

Calls are sent at times drawn beforehand and timed from those times ("open loop"): a server that stalls delays no later call, so
its stall is in the figures of every call that was due meanwhile.
"""
