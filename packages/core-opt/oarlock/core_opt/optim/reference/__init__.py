"""NumPy references: one module for each optimiser of the registry, with one function ``step``.

    step(parameter, grad, state, *, step, lr, role, options) -> new parameter

in float64, for one parameter; ``state`` is a dictionary kept between calls, ``options`` are the
optimiser's own by name. Written for reading, not for speed.
"""

from . import adafactor, adamw, lamb, lars, lion, muon, shampoo, soap, soap_muon

STEPS = {
    "adafactor": adafactor.step,
    "adamw": adamw.step,
    "lamb": lamb.step,
    "lars": lars.step,
    "lion": lion.step,
    "muon": muon.step,
    "normuon": muon.step,
    "shampoo": shampoo.step,
    "soap": soap.step,
    "soap_muon": soap_muon.step,
}
