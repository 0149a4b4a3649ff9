"""Code generation: a kernel becomes plain Python source, in a subset of what Numba compiles.

``scalar`` holds the template of every scalar function by dtype, ``basic`` and ``vecmath`` the machine code of the
names that these use, ``memory`` loads and stores by address, ``cpu`` prints loops. ``frontend`` lowers the source to
LLVM; ``numba_target`` has Numba do it.
"""
