"""Primitives that own programs: calls, checkpoints, custom rules, branches and loops."""
