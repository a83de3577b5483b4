"""NumPy references: one module for each optimiser of the registry, with one function ``step``.

    step(parameter, grad, state, *, step, lr, role, options) -> new parameter

in float64, for one parameter; ``state`` is a dictionary kept between calls, ``options`` are the
optimiser's own by name. Written for reading, not for speed.
"""

from . import adamw, muon

STEPS = {"adamw": adamw.step, "muon": muon.step}
