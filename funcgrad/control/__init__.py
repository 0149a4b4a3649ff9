"""Primitives that own programs: calls, checkpoints, and in time custom rules and loops."""
