"""The history of workflow runs, answered instantly however many runs there are."""

from importlib.metadata import version

__version__ = version("runtally")
