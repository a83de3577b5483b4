"""Plain values as bytes: numbers, text, bytes, arrays, lists and dictionaries. Nothing that runs code when read."""

import base64
import json
from typing import Any

import ml_dtypes
import numpy as np

_MARK = "__oarlock__"
_DTYPES = {
    np.dtype(one).name: np.dtype(one)
    for one in (
        *np.typecodes["AllInteger"], *"efdFD?", ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2,
    )
}  # fmt: skip


def dumps(value: Any) -> bytes:
    """
    Raises:
        ValueError: it has something that is not plain.
    """
    return json.dumps(_plain(value), separators=(",", ":")).encode()


def loads(data: bytes | bytearray | memoryview) -> Any:
    """
    Raises:
        ValueError: it is not what `dumps` wrote.
    """
    try:
        return _value(json.loads(bytes(data)))
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"this is not what dumps wrote: {error}") from error


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {_MARK: "bytes", "data": base64.b64encode(value).decode()}
    if isinstance(value, np.generic):
        return _plain(np.asarray(value)) if value.dtype.kind == "V" else value.item()
    if isinstance(value, np.ndarray) and value.dtype.name in _DTYPES:
        data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
        return {_MARK: "array", "dtype": value.dtype.name, "shape": value.shape, "data": data}
    if isinstance(value, tuple):
        return {_MARK: "tuple", "items": [_plain(one) for one in value]}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value) and _MARK not in value:
            return {key: _plain(one) for key, one in value.items()}
        items = [[_plain(key), _plain(one)] for key, one in value.items()]
        return {_MARK: "dict", "items": items}
    raise ValueError(
        f"a {type(value).__name__} cannot be sent: only numbers, text, bytes, arrays, lists, tuples and dictionaries"
    )


def _value(plain: Any) -> Any:
    if isinstance(plain, list):
        return [_value(one) for one in plain]
    if not isinstance(plain, dict):
        return plain
    match plain.get(_MARK):
        case None:
            return {key: _value(one) for key, one in plain.items()}
        case "bytes":
            return base64.b64decode(plain["data"])
        case "tuple":
            return tuple(_value(one) for one in plain["items"])
        case "dict":
            return {_value(key): _value(one) for key, one in plain["items"]}
        case "array":
            dtype = _DTYPES[plain["dtype"]]
            return np.frombuffer(base64.b64decode(plain["data"]), dtype).reshape(plain["shape"]).copy()  # fmt: skip
        case other:
            raise ValueError(f"{other!r} is not a kind of value")
