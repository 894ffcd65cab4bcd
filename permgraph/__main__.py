"""`python -m permgraph` is the command line."""

from permgraph.cli import main

main()
