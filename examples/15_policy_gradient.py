"""Policy gradient: a cart learns to balance a pole, from nothing but how long it stayed up.

The policy gives the probability of pushing right. The gradient of the expected reward is the mean of the gradients of
log-probabilities, each weighted with the reward that followed (REINFORCE), less what is earned on average at that time.
Simulation, gradient and update are one compiled function: a ``scan`` over time, ``vmap`` over episodes; NumPy's random
numbers are passed in.

    python examples/15_policy_gradient.py
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np

import funcgrad as fg
from funcgrad import lax

LENGTH, EPISODES, UPDATES, RATE = 200, 64, 120, 0.05


def physics(state: Any, push: Any) -> Any:
    """Barto, Sutton and Anderson's cart-pole, 20 ms later; ``push`` is -1 or 1."""
    x, speed, angle, spin = state
    sine, cosine = np.sin(angle), np.cos(angle)
    force = (10.0 * push + 0.05 * spin**2 * sine) / 1.1
    twist = (9.8 * sine - cosine * force) / (0.5 * (4.0 / 3.0 - 0.1 * cosine**2 / 1.1))
    pull = force - 0.05 * twist * cosine / 1.1
    return np.stack([x + 0.02 * speed, speed + 0.02 * pull, angle + 0.02 * spin, spin + 0.02 * twist])


def episode(weights: Any, start: Any, dice: Any) -> Any:
    """Log-probabilities of what was done, and whether the pole still stood."""

    def step(carry: Any, die: Any) -> Any:
        state, up = carry
        score = weights @ state
        right = die < fg.nn.sigmoid(score)
        log_p = fg.nn.log_sigmoid(np.where(right, score, -score))
        new = physics(state, np.where(right, 1.0, -1.0))
        state = lax.stop_gradient(np.where(up, new, state))
        return (state, up & (np.abs(state[0]) < 2.4) & (np.abs(state[2]) < 0.2095)), (log_p, up)

    return lax.scan(step, (start, np.True_), dice)[1]


def surrogate(weights: Any, starts: Any, dice: Any) -> Any:
    """Its gradient is that of the expected reward; also the mean length of an episode."""
    log_p, up = fg.vmap(episode, in_axes=(None, 0, 0))(weights, starts, dice)
    up = up.astype(float)
    ahead = np.cumsum(up[:, ::-1], axis=1)[:, ::-1]  # the reward from here on
    advantage = (ahead - np.mean(ahead, axis=0)) * up
    advantage = lax.stop_gradient(advantage / (np.std(advantage) + 1e-8))
    return np.sum(log_p * advantage) / EPISODES, np.mean(np.sum(up, axis=1))


@fg.jit
def update(weights: Any, starts: Any, dice: Any) -> Any:
    """One step uphill, of bounded length."""
    gradient, length = fg.grad(surrogate, has_aux=True)(weights, starts, dice)
    return weights + RATE * gradient / np.maximum(1.0, np.linalg.norm(gradient) / 10.0), length


def main() -> int:
    rng = np.random.default_rng(0)
    weights = np.zeros(4)
    clock = time.perf_counter()
    lengths = []
    for k in range(UPDATES):
        starts = rng.uniform(-0.05, 0.05, size=(EPISODES, 4))
        weights, length = update(weights, starts, rng.uniform(size=(EPISODES, LENGTH)))
        lengths.append(float(length))
        if k % 20 == 0:
            print(f"    after {k:>3} updates the pole stays up for {length:5.1f} of {LENGTH} steps")
    last = float(np.mean(lengths[-10:]))
    print(f"at last {last:.1f} steps, after {UPDATES * EPISODES} episodes in {time.perf_counter() - clock:.1f} s")
    good = lengths[0] < 40 and last > 180
    print("The cart balances the pole." if good else "The cart does NOT balance the pole.")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
