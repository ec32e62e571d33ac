"""What also runs on other hosts: the engine's parent and the header reader. Python 3.8, standard library alone."""
