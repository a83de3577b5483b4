"""NumPy references: one module for each optimiser of the registry, with one function ``step``.

    step(parameter, grad, state, *, step, lr, role, options) -> new parameter

in float64, for one parameter; ``state`` is a dictionary kept between calls, ``options`` are the
optimiser's own by name. Written for reading, not for speed.
"""

from . import (
    adafactor,
    adam_mini,
    adamw,
    lamb,
    lars,
    lion,
    mars,
    muon,
    schedule_free,
    shampoo,
    soap,
    soap_muon,
    sophia,
)

STEPS = {
    "adafactor": adafactor.step,
    "adam_mini": adam_mini.step,
    "adamw": adamw.step,
    "lamb": lamb.step,
    "lars": lars.step,
    "lion": lion.step,
    "mars": mars.step,
    "muon": muon.step,
    "normuon": muon.step,
    "schedule_free_adamw": schedule_free.step,
    "shampoo": shampoo.step,
    "soap": soap.step,
    "soap_muon": soap_muon.step,
    "sophia_g": sophia.step,
}
