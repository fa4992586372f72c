"""`python -m pipeline` is the command `nolb`."""

from pipeline.start import start

start()
