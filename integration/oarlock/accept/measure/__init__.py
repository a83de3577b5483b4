"""Measuring tools for experiments.

timing     paired timing of arms in turns, with an interval of their ratio
stats      bootstrap intervals of ratios, one-sided tests, intervals of means
target     when a curve reaches a target
resources  peak memory, CPU time, and limits on both
"""
