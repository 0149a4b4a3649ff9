"""The composition root of compilation: a flat jaxpr becomes a program of native kernels.

    build_graph     equations -> values seen through layouts
    form_groups     values -> groups that share a kernel
    build_steps     groups -> kernels and their integer tables
    make_plan       lifetimes -> slots and one arena
    kernel_source   kernel -> Python text, the key of the cache
    compile_kernels texts -> machine code (memory, disk, or LLVM)
    Program         rows for the native executor

Only ``kernel_source`` and ``compile_kernels`` depend on structure alone; all else is data of this shape and takes
microseconds per equation. ``lowered`` does what precedes machine code, ``rows`` what follows it, ``executable`` both.
"""

from ..runtime.preload import preload
from .executable import Executable, compile_jaxpr
from .lowered import Lowered, Stages, build, lower_jaxpr
from .rows import threads_of

__all__ = ["Executable", "Lowered", "Stages", "build", "compile_jaxpr", "lower_jaxpr", "preload", "threads_of"]
