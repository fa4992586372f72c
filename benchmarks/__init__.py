"""Measurements, side by side in one run; each states the machine and the number of runs."""
