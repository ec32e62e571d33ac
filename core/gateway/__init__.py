"""The data path, a program of its own (`python -P -m core.gateway`): listeners, streams, limits, usage.

It imports no service of the daemon; `wire` is all that the two share.
"""
