"""The third pass: each node to instructions, by one plain function ``(node, lowering)`` for each operator."""
