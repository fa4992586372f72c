"""How a plane of temperatures comes about: what is read, measured, chosen, and judged.

`inputs` knows what a sweep reads; `measuring` makes the plane; `choosing` picks its cell, by the
rules of `selection`, and `cross_fitting` does so by folds; `judging` says how sure the choice is.
The stage `sweep_temps` calls them in turn; `sweep.Sweep` is what comes out, and `files` saves and
loads it.
"""
