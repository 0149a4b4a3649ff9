"""Kernels: from a flat jaxpr to loop nests. Device-free: nothing here knows a CPU or a GPU.

``graph`` reads the primitives' lowerings into values and references, ``fuse`` groups them, ``build`` turns each group
into one ``ir.Kernel`` with its operands, ``plan`` lays the buffers out in memory.
"""
