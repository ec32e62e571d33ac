"""The terminal: the console and the scriptable command line, both views of the daemon."""
