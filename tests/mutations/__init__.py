"""`python -m tests.mutations`: see `__main__`."""
