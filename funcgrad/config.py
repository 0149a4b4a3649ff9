"""``funcgrad.config``: the switches of the process, under JAX's names too.

>>> from funcgrad import config
>>> config.debug_nans
False
>>> config.update("jax_debug_nans", False)
"""

from __future__ import annotations

from typing import Any

from .debug.watch import SWITCHES, is_on, set_default

__all__ = ["Config", "config"]


class Config:
    """``update(name, value)`` sets a switch; as an attribute it is read. Names may begin with ``jax_``.

    ======================  ==========================================================================================
    ``debug_nans``          see ``funcgrad.debug_nans``
    ``debug_infs``          see ``funcgrad.debug_infs``
    ``enable_x64``          always True: dtypes are NumPy's
    ======================  ==========================================================================================
    """

    def update(self, name: str, value: Any) -> None:
        """Set a switch for the whole process.

        Raises:
            AttributeError: there is no switch of that name.
            ValueError: ``enable_x64`` cannot be turned off.
        """
        plain = name.removeprefix("jax_")
        if plain in SWITCHES:
            set_default(plain, bool(value))
        elif plain == "enable_x64":
            if not value:
                raise ValueError(
                    "config: enable_x64 cannot be turned off: dtypes are NumPy's, and float64 the default. Compute in "
                    "float32 by giving arrays of dtype float32."
                )
        else:
            raise AttributeError(f"config: there is no switch {name!r}; there are {', '.join(self._names())}")

    def _names(self) -> tuple[str, ...]:
        return (*SWITCHES, "enable_x64")

    def __getattr__(self, name: str) -> Any:
        plain = name.removeprefix("jax_")
        if plain in SWITCHES:
            return is_on(plain)
        if plain == "enable_x64":
            return True
        raise AttributeError(f"config: there is no switch {name!r}; there are {', '.join(self._names())}")

    def __repr__(self) -> str:
        return f"Config({', '.join([f'{n}={getattr(self, n)}' for n in self._names()])})"


config = Config()
