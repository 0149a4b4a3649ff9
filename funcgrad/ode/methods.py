"""One step of each method: the new state, an estimate of its error, and what lies between.

Between the ends of a step the solution is the polynomial

    y(θ) = (1 - θ) y0 + θ (y1 + (1 - θ) (q1 + θ (q2 + θ q3)))

for both methods, which is of fourth order and continuous with its slope (Hairer, Nørsett, Wanner, *Solving Ordinary
Differential Equations I*, II.6; Hairer, Wanner, *II*, VI.4).
"""
# ruff: noqa: E501  (a row of a table is one line)

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..core.avals import aval_of
from ..ops.lu import factored, linear_solve
from ..ops.matrices import eye_like
from ..ops.promotion import as_dtype
from ..transforms.derive import jvp
from ..transforms.jacobian import jacfwd

__all__ = ["DOPRI5", "METHODS", "RODAS5P", "Method", "Step", "between"]

Field = Callable[[Any, Any], Any]
"""``f(y, t)`` of a vector."""


class Step(NamedTuple):
    """The state after a step, the estimated error, the three vectors of the polynomial, and what the next step can use
    again."""

    y: Any
    error: Any
    dense: tuple[Any, Any, Any]
    memo: tuple[Any, ...]


class Method(NamedTuple):
    """A method: ``start(f, t, y)`` gives the first memo, ``step(f, t, h, y, memo)`` a `Step`. ``alpha`` and ``beta``
    are the exponents of the step-size control, of this error and of the one before."""

    name: str
    order: int
    alpha: float
    beta: float
    start: Callable[[Field, Any, Any], tuple[Any, ...]]
    step: Callable[[Field, Any, Any, Any, tuple[Any, ...]], Step]


def between(theta: Any, y0: Any, y1: Any, dense: Sequence[Any]) -> Any:
    """The solution inside a step; ``theta`` goes from 0 to 1."""
    q1, q2, q3 = dense
    rest = 1.0 - theta
    return rest * y0 + theta * (y1 + rest * (q1 + theta * (q2 + theta * q3)))


def _sum(weights: Sequence[float], vectors: Sequence[Any]) -> Any:
    """The weighted sum, without the terms of weight 0."""
    total = None
    for w, v in zip(weights, vectors, strict=False):
        if w:
            term = v if w == 1.0 else w * v
            total = term if total is None else total + term
    return total


# Dormand and Prince, 5(4): explicit ------------------------------------------------------------------------------

_A = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_NODES = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
_MIDDLE = (
    -12715105075 / 11282082432,
    0.0,
    87487479700 / 32700410799,
    -10690763975 / 1880347072,
    701980252875 / 199316789632,
    -1453857185 / 822651844,
    69997945 / 29380423,
)


def _slope(f: Field, t: Any, y: Any) -> tuple[Any, ...]:
    return (f(y, t),)


def _dopri5(f: Field, t: Any, h: Any, y: Any, memo: tuple[Any, ...]) -> Step:
    """The last slope is the first one of the next step."""
    scale = _as(h, y)
    k = [memo[0]]
    for weights, c in zip(_A, _NODES, strict=True):
        stage = y + scale * _sum(weights, k)
        k.append(f(stage, t + c * h))
    change = stage - y
    q1 = scale * k[0] - change
    r4 = change - scale * k[-1] - q1
    r5 = scale * _sum(_MIDDLE, k)
    return Step(stage, scale * _sum(_ERROR, k), (q1, r4 + r5, -r5), (k[-1],))


def _as(h: Any, y: Any) -> Any:
    """A step size in the precision of the state."""
    dtype = aval_of(y).dtype
    return h if aval_of(h).dtype == dtype else as_dtype(h, dtype)


DOPRI5 = Method("dopri5", 5, 0.2 - 0.75 * 0.04, 0.04, _slope, _dopri5)


# Rodas5P: linearly implicit --------------------------------------------------------------------------------------
# G. Steinebach, Construction of Rosenbrock-Wanner method Rodas5P and numerical benchmarks within the Julia Differential
# Equations package, BIT Numerical Mathematics 63 (2023). Eight stages, order 5(4), L-stable, stiffly accurate.

_GAMMA = 0.21193756319429014
_RA = (
    (),
    (3.0,),
    (2.849394379747939, 0.45842242204463923),
    (-6.954028509809101, 2.489845061869568, -10.358996098473584),
    (2.8029986275628964, 0.5072464736228206, -0.3988312541770524, -0.04721187230404641),
    (-7.502846399306121, 2.561846144803919, -11.627539656261098, -0.18268767659942256, 0.030198172008377946),
)
_RC = (
    (),
    (-14.155112264123755,),
    (-17.97296035885952, -2.859693295451294),
    (147.12150275711716, -1.41221402718213, 71.68940251302358),
    (165.43517024871676, -0.4592823456491126, 42.90938336958603, -5.961986721573306),
    (24.854864614690072, -3.0009227002832186, 47.4931110020768, 5.5814197821558125, -0.6610691825249471),
    (30.91273214028599, -3.1208243349937974, 77.79954646070892, 34.28646028294783, -19.097331116725623, -28.087943162872662),
    (37.80277123390563, -3.2571969029072276, 112.26918849496327, 66.9347231244047, -40.06618937091002, -54.66780262877968, -9.48861652309627),
)  # fmt: skip
_RNODES = (0.0, 0.6358126895828704, 0.4095798393397535, 0.9769306725060716, 0.4288403609558664, 1.0, 1.0, 1.0)
_RTIME = (
    0.21193756319429014,
    -0.42387512638858027,
    -0.3384627126235924,
    1.8046452872882734,
    2.325825639765069,
    0,
    0,
    0,
)
_RDENSE = (
    (25.948786856663858, -2.5579724845846235, 10.433815404888879, -2.3679251022685204, 0.524948541321073, 1.1241088310450404, 0.4272876194431874, -0.17202221070155493),
    (-9.91568850695171, -0.9689944594115154, 3.0438037242978453, -24.495224566215796, 20.176138334709044, 15.98066361424651, -6.789040303419874, -6.710236069923372),
    (11.419903575922262, 2.8879645146136994, 72.92137995996029, 80.12511834622643, -52.072871366152654, -59.78993625266729, -0.15582684282751913, 4.883087185713722),
)  # fmt: skip


def _nothing(f: Field, t: Any, y: Any) -> tuple[Any, ...]:
    return ()


def _rodas5p(f: Field, t: Any, h: Any, y: Any, memo: tuple[Any, ...]) -> Step:
    """One Jacobian, by forward mode, and one factorisation for eight systems ``(1 / (γ h) - J) k = r``."""
    scale = _as(h, y)
    jacobian = jacfwd(f)(y, t)
    slope, drift = jvp(lambda time: f(y, time), (t,), (_one(t),))
    drift = scale * drift
    n = aval_of(y).shape[0]
    matrix = factored((1.0 / (_GAMMA * scale)) * eye_like(jacobian, n) - jacobian)
    inverse = 1.0 / scale
    k: list[Any] = []
    stage = y
    for number, (c, weight) in enumerate(zip(_RNODES, _RTIME, strict=True)):
        if number:
            stage = y + _sum(_RA[number], k) if number < len(_RA) else stage + k[-1]
            slope = f(stage, t + c * h)
        side = slope + weight * drift if weight else slope
        side = side + inverse * _sum(_RC[number], k) if number else side
        k.append(linear_solve(matrix, side[:, None])[:, 0])
    q1, q2, q3 = [_sum(weights, k) for weights in _RDENSE]
    return Step(stage + k[-1], k[-1], (q1, q2, q3), ())


def _one(t: Any) -> Any:
    return aval_of(t).dtype.type(1)


RODAS5P = Method("rodas5p", 5, 0.2 - 0.75 * 0.04, 0.04, _nothing, _rodas5p)

METHODS = {m.name: m for m in (DOPRI5, RODAS5P)}
