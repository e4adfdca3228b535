"""Sweeps and searches: many runs, each in a process of its own, and a summary of them.

Importing this package imports nothing else, so that command lines answer at once.
"""
