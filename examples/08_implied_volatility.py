"""Implied volatility and its derivatives, by the implicit function theorem.

The price of an option grows with the volatility of the share; the volatility that a price implies has no formula, and
is found by a loop. Differentiating through the loop would work, but its steps do not matter: where
``price(sigma, market) = quote`` holds, ``sigma`` moves by ``(dquote - d price/d market) / vega``. ``custom_jvp`` says
just that, and every transformation then knows it: gradients, second derivatives, ``vmap`` over a table, ``jit``.

    python examples/08_implied_volatility.py
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from scipy.special import ndtr

import funcgrad as fg


def price(sigma: Any, spot: Any, strike: Any, years: Any, rate: Any) -> Any:
    """Black and Scholes' price of a European call."""
    spread = sigma * np.sqrt(years)
    d1 = (np.log(spot / strike) + (rate + 0.5 * sigma**2) * years) / spread
    return spot * normal_cdf(d1) - strike * np.exp(-rate * years) * normal_cdf(d1 - spread)


def normal_cdf(x: Any) -> Any:
    return 0.5 * fg.scipy.special.erfc(-x / np.sqrt(2.0))


@fg.custom_jvp
def implied_volatility(quote: Any, spot: Any, strike: Any, years: Any, rate: Any) -> Any:
    """The volatility at which the price is the quote: 60 halvings of the interval from 0 to 4."""

    def halve(_: Any, ends: Any) -> Any:
        low, high = ends
        middle = 0.5 * (low + high)
        too_low = price(middle, spot, strike, years, rate) < quote
        return np.where(too_low, middle, low), np.where(too_low, high, middle)

    low, high = fg.lax.fori_loop(0, 60, halve, (0.0 * quote, 0.0 * quote + 4.0))
    return 0.5 * (low + high)


@implied_volatility.defjvp
def _(primals: Any, tangents: Any) -> Any:
    sigma = implied_volatility(*primals)
    _, *market = primals
    d_quote, *d_market = tangents
    _, moved = fg.jvp(lambda *m: price(sigma, *m), tuple(market), tuple(d_market))
    _, vega = fg.jvp(lambda s: price(s, *market), (sigma,), (np.ones_like(sigma),))
    return sigma, (d_quote - moved) / vega


def main() -> int:
    spot, years, rate = 100.0, 0.5, 0.03
    strikes = np.linspace(80.0, 125.0, 10)
    smile = 0.2 + 0.1 * np.log(strikes / spot) ** 2 - 0.15 * np.log(strikes / spot)
    quotes = price(smile, spot, strikes, years, rate)

    market = (spot, strikes, years, rate)
    axes = (0, None, 0, None, None)
    found = fg.jit(fg.vmap(implied_volatility, axes))(quotes, *market)
    slopes = fg.jit(fg.vmap(fg.grad(implied_volatility, argnums=(0, 1)), axes))(quotes, *market)
    curvature = fg.jit(fg.vmap(fg.grad(fg.grad(implied_volatility)), axes))(quotes, *market)

    # the textbook's greeks at the volatility that the quotes were made with
    spread = smile * np.sqrt(years)
    d1 = (np.log(spot / strikes) + (rate + 0.5 * smile**2) * years) / spread
    vega = spot * np.sqrt(years / (2 * np.pi)) * np.exp(-0.5 * d1**2)
    delta, vomma = ndtr(d1), vega * d1 * (d1 - spread) / smile
    wanted = 1 / vega, -delta / vega, -vomma / vega**3

    print(f"{'strike':>8}{'quote':>10}{'volatility':>12}{'d/d quote':>11}{'d/d spot':>11}")
    for row in zip(strikes, quotes, found, slopes[0], slopes[1], strict=True):
        print(f"{row[0]:>8.1f}{row[1]:>10.4f}{row[2]:>12.6f}{row[3]:>11.6f}{row[4]:>11.6f}")
    errors = [float(np.max(np.abs(a / b - 1))) for a, b in zip((*slopes, curvature), wanted, strict=True)]
    lost = float(np.max(np.abs(found - smile)))
    print(f"\nvolatilities are found within {lost:.0e}; first derivatives agree with the textbook's greeks within "
          f"{max(errors[:2]):.0e}, the second within {errors[2]:.0e}")  # fmt: skip
    good = lost < 1e-10 and max(errors) < 1e-7
    print("The smile is recovered." if good else "The smile is NOT recovered.")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
