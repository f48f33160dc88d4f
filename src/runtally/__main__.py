"""`python -m runtally`: the command line, for processes that are started by this interpreter."""

from .cli import main

main()
