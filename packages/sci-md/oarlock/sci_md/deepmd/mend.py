"""Two defects of DeePMD-kit's Paddle backend that spoil forces, mended at run time.

Both come from gradients that Paddle 3.3 leaves unset:

* ``se_e2_a`` with ``type_one_side: false``, the default, adds up rows chosen by a mask in place: forces are NaN
  in float64.
* ``dpa3`` fills a tensor by a mask from another one (``masked_fill``), the gradient of which by that other one is
  whatever memory held: forces differ from call to call.

The two statements are exchanged for ``index_put`` and ``where``, which are right to second order. Nothing on disk
is changed, and another version of DeePMD-kit is refused.
"""

import importlib
import inspect
import linecache
import logging
import re
import textwrap
from dataclasses import dataclass

from oarlock.sci_md.deepmd.version import VERSION, require

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Defect:
    """A statement of a method, as a regular expression, and what takes its place."""

    model: str
    module: str
    owner: str
    broken: str
    mended: str

    @property
    def name(self) -> str:
        """In place of the name of a source file."""
        return f"<{self.module}.{self.owner}.forward, mended by oarlock.sci_md>"


_DEFECTS = (
    _Defect(
        model="se_e2_a with type_one_side: false",
        module="deepmd.pd.model.descriptor.se_a",
        owner="DescrptBlockSeA",
        broken=r"xyz_scatter\[ti_mask\] \+= gr\b",
        mended="xyz_scatter = paddle.index_put(xyz_scatter, (ti_mask,), xyz_scatter[ti_mask] + gr)",
    ),
    _Defect(
        model="dpa3",
        module="deepmd.pd.model.descriptor.repflow_layer",
        owner="RepFlowLayer",
        broken=r"padding_edge_angle_update\.masked_fill\(\s*~full_mask\.unsqueeze\(-1\), edge_ebd\s*\)",
        mended="paddle.where(~full_mask.unsqueeze(-1), edge_ebd, padding_edge_angle_update)",
    ),
)


def mend() -> tuple[str, ...]:
    """Mends the backend in this process, and says so in the log.

    Returns:
        The kinds of models that were mended by this call; none if it was done before.

    Raises:
        ValueError: another version of DeePMD-kit, or its source is not what that version has; then nothing
            is changed.
    """
    require()
    owners = [getattr(importlib.import_module(one.module), one.owner) for one in _DEFECTS]
    pending = [
        (one, owner, _mended_source(one, owner))
        for one, owner in zip(_DEFECTS, owners, strict=True)
        if owner.forward.__code__.co_filename != one.name
    ]
    for one, owner, source in pending:
        # to_static reads the source of what it compiles.
        linecache.cache[one.name] = (len(source), None, source.splitlines(True), one.name)
        made: dict[str, object] = {}
        exec(compile(source, one.name, "exec"), vars(inspect.getmodule(owner)), made)
        owner.forward = made["forward"]
        log.warning(
            "deepmd-kit %s: mended the forces of %s, which Paddle computes wrongly",
            VERSION,
            one.model,
        )
    return tuple(one.model for one, _, _ in pending)


def _mended_source(defect: _Defect, owner: type) -> str:
    source = textwrap.dedent(inspect.getsource(owner.forward))  # type: ignore[attr-defined]
    found, count = re.subn(defect.broken, defect.mended, source)
    if count != 1:
        raise ValueError(
            f"deepmd-kit {VERSION} is not as it was published: {defect.module} lacks the statement "
            f"that is wrong in it ({defect.broken}); install it anew"
        )
    return found
