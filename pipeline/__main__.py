"""`python -m pipeline` is the command `nolb`."""

from pipeline.cli import main

main()
