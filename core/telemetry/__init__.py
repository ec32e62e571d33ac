"""Samples of hosts and replicas, and the usage that the gateway reports."""
