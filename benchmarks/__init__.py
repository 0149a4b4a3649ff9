"""Speed of funcgrad side by side with its peers: ``python -m benchmarks``.

``workloads`` says what is computed (one small declaration each), ``peers`` who computes it (one module each),
``session`` is a library in its own process, ``warm`` times calls in turns, ``cold`` what happens in a fresh process
(compile time, second shape, disk cache, memory), ``results`` keeps the figures, ``report`` prints, tables and draws.
"""
