"""One module per way to reach a host: facts, files, launches, signals, watching, samples, logs."""
