"""Checkpoints of DeePMD-kit's Paddle backend."""

from pathlib import Path
from typing import Any

import paddle

from oarlock.sci_md.deepmd.version import require


def load_model(path: str | Path) -> Any:
    """The model of a checkpoint (``.pd``), as a layer of DeePMD-kit in evaluation mode.

    Raises:
        ValueError: no such file, not a checkpoint, or one of several tasks.
    """
    require()
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"path={str(path)!r} is no file")
    try:
        state = paddle.load(str(path))
        state = state.get("model", state)
        params = state["_extra_state"]["model_params"]
    except Exception as error:  # whatever unpickling says
        raise ValueError(
            f"{path} is no checkpoint of DeePMD-kit, or cut short ({error})"
        ) from error
    if "model_dict" in params:
        raise ValueError(
            f"{path} holds the tasks {', '.join(params['model_dict'])}: give a checkpoint of one"
        )
    from deepmd.pd.model.model import get_model

    model = get_model(params)
    prefix = "model.Default."
    own = {name[len(prefix) :]: v for name, v in state.items() if name.startswith(prefix)}
    expected = model.state_dict()
    missing = sorted(set(expected) - set(own))
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing[:5])}: it is damaged")
    model.set_state_dict(own)
    model.eval()
    return model
