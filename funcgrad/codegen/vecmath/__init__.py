"""Scalar mathematics that LLVM can vectorise, for generated kernels.

LLVM by itself has no vector mathematics library: a loop over `tanh` calls the C library element by element. The
functions here are built of polynomials, selects and bit patterns instead, without calls or branches, so that a loop
around them is widened like any arithmetic. A name is `<function>_<kind>`, as in `exp_f64`, `tanh_f32` or
`floor_divide_i32`::

    def kernel(x, y, n):
        for i in range(n):
            store_f64(y, i, 1, exp_f64(load_f64(x, i, 0)))

Every float function is within 2 ulp of the truth over its whole range, subnormals and overflow thresholds included
(`lgamma` and `digamma` next to their zeros excepted), and gives C's and NumPy's values at zeros, infinities and NaN.

How it is built: `expr` is a small language of operators that append LLVM instructions; the function modules read
like mathematics in it; `registry` is the table of all functions, which `codegen.vocabulary` offers to kernels.
llvmlite is not imported until the first function is emitted.

A loop is only widened if LLVM can follow its addresses: load and store through a loop-invariant base pointer and an
offset (`getelementptr`), not through an integer address computed anew for each element.
"""

from __future__ import annotations

from . import bits, erfinv, error, exponential, gamma, inverse, logarithm, power, root, short_power, trigonometric
from .registry import DEFINITIONS

__all__ = ["NAMES"]

# Importing these modules is what fills the table.
FUNCTION_MODULES = (
    bits,
    erfinv,
    error,
    exponential,
    gamma,
    inverse,
    logarithm,
    power,
    root,
    short_power,
    trigonometric,
)

NAMES = frozenset(DEFINITIONS)
"""All functions, known without importing llvmlite."""
