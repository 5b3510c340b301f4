"""Backpropagation that can be seen: every value, slope and product of a graph, in tables, pictures and pages."""
