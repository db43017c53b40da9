"""Sparse matrices for the kernels: which weights are there (``pattern.Pattern``), apart from what they are worth.

A pattern is made once, when a mask is, and its indices never change. Each format is a view of it: indices in the order in which a
kernel reads them, and a way to bring values into that order, so that new values need no new indices. Only NumPy is needed.
"""
