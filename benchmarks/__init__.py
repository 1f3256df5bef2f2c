"""Ratios against the physical limit: what we do, over what a bare loop does with the same bytes.

A figure of its own says little: the machine changes its speed for minutes at a time
(another tenant, a governor).  So every figure is a *ratio* of two things measured right
after each other, at least nine times, in alternating order; the median counts, and the
spread is printed with it.  The baselines (baseline.c) use the same files, the same
offsets, the same CRC code and the same number of threads.

``make bench`` runs all, prints JSON and draws into build/bench.
"""
