"""DeePMD-kit's Paddle models: trained with a mended backend, run fast, converted to ours and back."""

from oarlock.sci_md.deepmd.checkpoint import load_model
from oarlock.sci_md.deepmd.convert import load_deepmd, save_deepmd

__all__ = ["load_deepmd", "load_model", "save_deepmd"]
