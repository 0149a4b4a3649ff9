"""Reading at computed indices: ``gather``, ``dynamic_slice`` and ``dynamic_update_slice``.

``gather(x, indices, axes)`` is NumPy's advanced indexing with the indexed axes first: all index arrays have one shape
``I``, array ``k`` indexes axis ``axes[k]``, and the result's shape is ``I`` plus the other axes of ``x`` in order. It is
linear in ``x``; its transpose adds into zeros (``scatter_add``). No index can reach outside: ``mode`` says what an index
outside of ``[0, extent)`` means.

========================  ========================================================================================
``"clip"``                the nearest element
``"fill"``                NaN (the smallest integer if signed, the largest if unsigned, False)
``"zero"``                0: what ``fill`` becomes in derivatives
``"promise_in_bounds"``   the caller vouches for the indices; should one be outside, some element is read
========================  ========================================================================================
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core.avals import ShapedArray, aval_of
from ..core.lowering import DynamicSlice, DynamicUpdate, Gather
from ..core.primitive import ZERO, Linear, Primitive
from ..util import canonicalize_axis
from .create import broadcasted_iota, instantiate_zeros, iota
from .elementwise import add, convert_element_type, maximum, minimum
from .families import broadcast_shapes
from .scatter import check_indices, gather_to_scatter_mode, scatter, scatter_add
from .shape import batch_axis_to, insert_at
from .structural import broadcast_in_dim, broadcast_to, reshape, shape_of, transpose

__all__ = [
    "dynamic_slice",
    "dynamic_slice_p",
    "dynamic_update_slice",
    "dynamic_update_slice_p",
    "gather",
    "gather_p",
    "take",
    "take_along_axis",
]
