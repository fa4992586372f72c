"""The ensemble on a whole plane of two temperatures: exact predictions without a softmax a cell.

A softmax keeps its head's order at every temperature, so that of one sample only the classes on the
Pareto front of its heads' logits can win anywhere on the plane (`candidates`). Of those, class y
beats class c in the cell (i, j) where

    w_old (e_old,y - e_old,c) / Z_old at t_old[i]  >  w_new (e_new,c - e_new,y) / Z_new at t_new[j]

with e = exp((logit - largest logit) / t) and Z the sum of e over all classes: one side depends on i
alone, the other on j alone. Each head needs one pass over its logits for each temperature, for Z
(`partitions`), and only for samples that have two candidates; a cell is then a comparison
(`duels`).

The definition is the direct float64 evaluation of `pipeline.ensemble`, its rounding included. Both
sides are therefore computed as intervals that hold what the direct evaluation finds; where they
overlap, which is rare, that one cell of that one sample is evaluated directly.
"""

from pipeline.plane.hits import HitPlane, collect_hits
from pipeline.plane.members import Member, plane_members

__all__ = ["HitPlane", "Member", "collect_hits", "plane_members"]
