"""Function transforms for NumPy and Numba: derivatives, batching and compilation of plain NumPy code.

>>> import numpy as np
>>> import funcgrad as fg
>>> f = lambda x: np.sum(np.tanh(x) ** 2)
>>> fg.grad(f)(np.array([0.0, 1.0]))
array([0.        , 0.63970001])
>>> fg.jit(fg.vmap(fg.grad(f)))(np.zeros((3, 2))).shape
(3, 2)

Names are JAX's, arrays and dtypes NumPy's, kernels Numba's Python.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import debug, lax, nn, numpy, scipy, tree, tree_util
from ._version import __version__
from .config import config
from .control.call import named_call
from .control.callback import io_callback, pure_callback
from .control.checkpoint import checkpoint
from .control.custom_functions import closure_convert, custom_gradient, custom_jvp, custom_vjp
from .control.policies import checkpoint_name, checkpoint_policies
from .control.residuals import print_saved_residuals, saved_residuals
from .core.avals import FLOAT0 as float0
from .core.jaxpr import ClosedJaxpr, Jaxpr, check_jaxpr
from .core.trace import Tracer
from .debug import infs as debug_infs
from .debug import nans as debug_nans
from .errors import FuncgradError, FuncgradWarning, LeakedTracerError, NonDifferentiableError, NonFiniteError
from .jit import clear_caches, jit
from .later import later
from .numpy import at
from .runtime import cache
from .runtime.threads import get_num_threads, set_num_threads
from .transforms.derive import grad, jvp, linear_transpose, linearize, value_and_grad, vjp
from .transforms.inspect import ShapeDtypeStruct, eval_shape, make_jaxpr
from .transforms.jacobian import hessian, jacfwd, jacrev
from .transforms.vmap import vmap

if TYPE_CHECKING:
    from . import ad_checkpoint, checkify, custom_derivatives, experimental, flatten_util, jet, sparse, test_util
    from .explanation import Explanation, explain
    from .sparse import sparse_hessian, sparse_jacobian
else:
    __getattr__, __dir__ = later(
        __name__,
        {
            "Explanation": "explanation",
            "ad_checkpoint": "ad_checkpoint",
            "checkify": "checkify",
            "custom_derivatives": "custom_derivatives",
            "experimental": "experimental",
            "explain": "explanation",
            "flatten_util": "flatten_util",
            "jet": "jet",
            "sparse": "sparse",
            "sparse_hessian": "sparse",
            "sparse_jacobian": "sparse",
            "test_util": "test_util",
        },
    )

remat = checkpoint

__all__ = [
    "ClosedJaxpr",
    "Explanation",
    "FuncgradError",
    "FuncgradWarning",
    "Jaxpr",
    "LeakedTracerError",
    "NonDifferentiableError",
    "NonFiniteError",
    "ShapeDtypeStruct",
    "Tracer",
    "__version__",
    "ad_checkpoint",
    "at",
    "cache",
    "check_jaxpr",
    "checkify",
    "checkpoint",
    "checkpoint_name",
    "checkpoint_policies",
    "clear_caches",
    "closure_convert",
    "config",
    "custom_derivatives",
    "custom_gradient",
    "custom_jvp",
    "custom_vjp",
    "debug",
    "debug_infs",
    "debug_nans",
    "eval_shape",
    "experimental",
    "explain",
    "flatten_util",
    "float0",
    "get_num_threads",
    "grad",
    "hessian",
    "io_callback",
    "jacfwd",
    "jacrev",
    "jet",
    "jit",
    "jvp",
    "lax",
    "linear_transpose",
    "linearize",
    "make_jaxpr",
    "named_call",
    "nn",
    "numpy",
    "print_saved_residuals",
    "pure_callback",
    "remat",
    "saved_residuals",
    "scipy",
    "set_num_threads",
    "sparse",
    "sparse_hessian",
    "sparse_jacobian",
    "test_util",
    "tree",
    "tree_util",
    "value_and_grad",
    "vjp",
    "vmap",
]
