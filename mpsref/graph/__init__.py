"""Nodes, and what can be done with them without knowing a single number: differentiate, order, read and write."""
