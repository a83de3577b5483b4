"""DeePMD-kit's Paddle models: trained with a mended backend, run fast, converted to ours and back."""

from oarlock.sci_md.deepmd.checkpoint import load_model
from oarlock.sci_md.deepmd.convert import load_deepmd, save_deepmd
from oarlock.sci_md.deepmd.mend import mend
from oarlock.sci_md.deepmd.running import run

__all__ = ["load_deepmd", "load_model", "mend", "run", "save_deepmd"]
