"""Features of atoms that turn with the structure: harmonics, rotations into the frames of edges,
convolutions there, and products on a sphere.

Features are one tensor for each degree l, [N, 2l + 1, C]; the components are those of the real spherical
harmonics, m = −l … l. Float32 or float64, on the CPU, contiguous. Results have the same bits for any
number of threads.

>>> from oarlock.native import spherical
>>> spherical.frames(vectors, frames)
>>> spherical.convolve([scalars, axes], table, frames, offsets, neighbours, out, cutoff=5.0)

With gradients of first and second order: ``oarlock.native.paddle.spherical``.
"""

from oarlock.native._spherical_convolution import (
    convolve,
    convolve_backward,
    convolve_second,
    convolve_tangent,
    paths,
)
from oarlock.native._spherical_frames import components, frame_size, frames, harmonics, rotate
from oarlock.native._spherical_powers import (
    powers,
    powers_backward,
    powers_second,
    sphere_points,
)

__all__ = [
    "components",
    "convolve",
    "convolve_backward",
    "convolve_second",
    "convolve_tangent",
    "frame_size",
    "frames",
    "harmonics",
    "paths",
    "powers",
    "powers_backward",
    "powers_second",
    "rotate",
    "sphere_points",
]
