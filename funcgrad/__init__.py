"""Function transforms for NumPy and Numba: derivatives, batching and compilation of plain NumPy code."""
