"""Oracle of ``oarlock.native.atoms``."""

from oarlock.native.reference.atoms.neighbours import edges

__all__ = ["edges"]
