"""A routine of a library as a step of the graph.

It reads its operand where it lies if the layout allows it, and writes a buffer of its own in the order in memory that
suits it; the result is that buffer seen through a layout. So no pass over memory is spent on transposing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core.jaxpr import Eqn
from .graph import Call, GraphBuilder, Ref, Value, squeeze_shape

__all__ = ["routine"]


def routine(
    b: GraphBuilder, kind: str, eqn: Eqn, operand: Ref, shape: Sequence[int], dtype: np.dtype[Any], data: Any
) -> Value:
    """A call with one operand and one result, of which ``shape`` is the order in memory."""
    call = Call(kind, eqn, (operand,), (operand.layout.shape,), data=data)
    operand.value.uses += 1
    b.order.append(call)
    value = Value("step", squeeze_shape(tuple(shape)), dtype, b.count)
    b.count += 1
    value.call, value.eqn = call, eqn
    call.outputs = (value,)
    return value
