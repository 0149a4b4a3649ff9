"""Jaxpr to jaxpr, before fusion. Each pass is a pure function; ``pipeline.PASSES`` is the list in order."""
