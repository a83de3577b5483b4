"""The defect of DeePMD-kit's Paddle backend that makes forces NaN, mended at run time.

With ``type_one_side: false``, the default, ``se_e2_a`` adds up rows chosen by a mask, whose gradient
Paddle 3.3 leaves unset in float64. The one statement is exchanged for ``index_put``, which is right to
second order. Nothing on disk is changed, and another version of DeePMD-kit is refused.
"""

import inspect
import linecache
import logging
import textwrap

from oarlock.sci_md.deepmd.version import VERSION, require

_BROKEN = "xyz_scatter[ti_mask] += gr"
_MENDED = "xyz_scatter = paddle.index_put(xyz_scatter, (ti_mask,), xyz_scatter[ti_mask] + gr)"
_NAME = "<deepmd.pd se_e2_a forward, mended by oarlock.sci_md>"

log = logging.getLogger(__name__)


def mend() -> bool:
    """Mends the backend in this process, and says so in the log.

    Returns:
        Whether anything was changed: False if it was mended before.

    Raises:
        ValueError: another version of DeePMD-kit, or its source is not what that version has.
    """
    require()
    from deepmd.pd.model.descriptor import se_a

    descriptor = se_a.DescrptBlockSeA
    if descriptor.forward.__code__.co_filename == _NAME:
        return False
    source = textwrap.dedent(inspect.getsource(descriptor.forward))
    if source.count(_BROKEN) != 1:
        raise ValueError(
            f"deepmd-kit {VERSION} is not as it was published: {se_a.__file__} lacks "
            f"{_BROKEN!r}; install it anew"
        )
    source = source.replace(_BROKEN, _MENDED)
    # to_static reads the source of what it compiles.
    linecache.cache[_NAME] = (len(source), None, source.splitlines(keepends=True), _NAME)
    made: dict[str, object] = {}
    exec(compile(source, _NAME, "exec"), vars(se_a), made)
    descriptor.forward = made["forward"]
    log.warning(
        "deepmd-kit %s: mended the gradient of se_e2_a with type_one_side: false, which is NaN in "
        "Paddle's float64",
        VERSION,
    )
    return True
