"""One module per inference server: how to start it, when it is ready, its counters, why it failed."""
