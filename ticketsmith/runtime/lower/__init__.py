"""The third pass: from nodes to instructions, by one plain function ``(node, lowering)`` for each operator.

In: the analysis and the layouts. Out: instructions in the order in which values are needed. The table of operators and
their functions is :mod:`ticketsmith.runtime.lower.table`.
"""
