"""Proof that stands without the daemon: what is hashed and signed, keys, exported files and their verification.

Neither database nor service is imported here, so that a file can be verified on any machine.
"""
