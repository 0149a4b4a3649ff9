"""Speed of funcgrad side by side with NumPy, autograd and JAX: ``python -m benchmarks``.

``workloads`` says what is computed (one small declaration each), ``peers`` who computes it, ``measure`` how it is
timed, ``cold`` what happens in a fresh process (compile time, second shape, disk cache), ``report`` prints and writes.
"""
