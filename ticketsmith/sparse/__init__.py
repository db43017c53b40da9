"""Sparse matrices for the kernels: which weights are there (:class:`Pattern`), apart from what they are worth.

A pattern is made once, when a mask is, and its indices never change. Each format is a view of it: indices in the order in which a
kernel reads them, and for each value of the pattern its place in that order, so that new values need no new indices. Only NumPy
is needed.
"""

from ticketsmith.sparse.bitmask import Bitmask, pack_bitmask
from ticketsmith.sparse.pattern import Pattern
from ticketsmith.sparse.sell import Sell, pack_sell
from ticketsmith.sparse.sparse_conv import SparseConv, pack_few_sparse_conv, pack_sparse_conv

__all__ = [
    "Bitmask",
    "Pattern",
    "Sell",
    "SparseConv",
    "pack_bitmask",
    "pack_few_sparse_conv",
    "pack_sell",
    "pack_sparse_conv",
]
