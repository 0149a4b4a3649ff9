"""Integrators of ordinary differential equations: methods, the loop that takes steps, and its derivatives.

The face for users is ``funcgrad.scipy.integrate``.
"""
