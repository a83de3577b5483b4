"""Codes of tensors that lie one behind the other: what is added first, what is summed, where it is written."""

from types import SimpleNamespace

import ml_dtypes
import numpy as np
import paddle
import pytest

from native.tests.util_codec import CODES, FLOAT32  # pants: no-infer-dep
from oarlock import native
from oarlock.native import codec
from oarlock.native.paddle import as_numpy

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DENSE = [name for name in CODES if name == "bf16" or "bits" in name or "signs" in name]
WRITE = {
    codec.bf16_encode: codec.bf16_write,
    codec.blocks_encode: codec.blocks_write,
    codec.signs_encode: codec.signs_write,
}
#: Of tensors: none ends where a block does, some are shorter than one, and there are several parts.
ROWS = {
    "one": [5003],
    "short": [1, 2, 0, 3, 9, 1],
    "odd": [7, 4097, 1, 0, 30001, 255, 8191],
    "none": [],
}

each_row = pytest.mark.parametrize("row", ROWS)


@pytest.fixture(params=DENSE)
def code(request):
    found = CODES[request.param]
    return SimpleNamespace(code=found, write=WRITE[found.encode], options=found.options)


def tensors(sizes, types=(FLOAT32, BFLOAT16)):
    rng = np.random.default_rng(sum(sizes))
    return [
        rng.standard_normal(size).astype(FLOAT32).astype(types[number % len(types)])
        for number, size in enumerate(sizes)
    ]


def behind(arrays):
    return np.concatenate([np.zeros(0, FLOAT32), *(one.astype(FLOAT32) for one in arrays)])


@each_row
@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("path", native.info().paths)
def test_gradients_are_coded_as_if_they_had_been_added_before(code, row, keep, path):
    gradients = tensors(ROWS[row])
    given = behind(gradients)
    acc = np.random.default_rng(1).standard_normal(given.size).astype(FLOAT32)
    options = code.options | code.code.encode_options
    with native.forced_path(path):
        wanted, rest = code.code.run(acc + given, keep=keep)
        for threads in (1, 3):
            arrays, found = code.code.empty(acc.size), acc.copy()
            code.code.encode(
                found, *arrays, gradients=gradients, keep=keep, threads=threads, **options
            )
            assert [one.tobytes() for one in arrays] == [one.tobytes() for one in wanted]
            np.testing.assert_array_equal(found, rest)


@each_row
@pytest.mark.parametrize("path", native.info().paths)
def test_codes_are_written_over_tensors(code, row, path):
    targets = tensors(ROWS[row])
    count = sum(ROWS[row])
    with native.forced_path(path):
        arrays, _ = code.code.run(np.random.default_rng(2).standard_normal(count).astype(FLOAT32))
        wanted = code.code.decoded(arrays, count)
        for threads in (1, 3):
            for one in targets:
                one[...] = np.nan
            code.write(*arrays, targets, threads=threads, **code.options)
            parts = np.split(wanted, np.cumsum(ROWS[row])[:-1]) if targets else []
            for one, part in zip(targets, parts, strict=True):
                np.testing.assert_array_equal(one, part.astype(one.dtype))


def test_codes_are_summed_one_after_the_other(code):
    count = 40001
    codes = [
        code.code.run(np.random.default_rng(seed).standard_normal(count).astype(FLOAT32))[0]
        for seed in range(3)
    ]
    wanted = np.ones(count, FLOAT32)
    for one in codes:
        code.code.add(*one, wanted, weight=0.3, **code.options)
    for threads in (1, 3):
        found = np.ones(count, FLOAT32)
        lists = [list(column) for column in zip(*codes)]
        code.code.add(*lists, found, weight=0.3, threads=threads, **code.options)
        np.testing.assert_array_equal(found, wanted)


def test_what_is_not_finite_is_written(code):
    for odd in (np.nan, np.inf):
        gradients = tensors([30, 5000])
        gradients[0][29] = odd
        acc = np.zeros(5030, FLOAT32)
        arrays = code.code.empty(acc.size)
        options = code.options | code.code.encode_options
        code.code.encode(acc, *arrays, gradients=gradients, keep=True, **options)
        code.write(*arrays, gradients, **code.options)
        assert not np.isfinite(gradients[0][29].astype(FLOAT32)) and np.isnan(acc[29])
        assert np.isfinite(gradients[1][-1].astype(FLOAT32)) or code.options.get("block", 0) > 5000


def test_paddle_tensors_in_a_row():
    gradients = [paddle.ones([2, 8]), paddle.full([4], 3.0, "bfloat16")]
    acc, arrays = np.zeros(20, FLOAT32), CODES["8 bits"].empty(20)
    codec.blocks_encode(acc, *arrays, gradients=gradients, keep=True)
    codec.blocks_write(*arrays, gradients[::-1])
    found = behind([as_numpy(one).reshape(-1) for one in gradients[::-1]])
    assert found == pytest.approx([1.0] * 16 + [3.0] * 4, rel=0.02)


def refused(message, call, *arguments, **options):
    """Nothing was changed."""
    given = [one for one in [*arguments, *options.values()] if isinstance(one, (list, np.ndarray))]
    given = [one for part in given for one in (part if isinstance(part, list) else [part])]
    before = [one.copy() for one in given if isinstance(one, np.ndarray)]
    with pytest.raises(ValueError, match=message):
        call(*arguments, **options)
    for one, other in zip((one for one in given if isinstance(one, np.ndarray)), before):
        np.testing.assert_array_equal(one, other)


def test_rows_are_checked_with_the_place_in_them(code):
    encode, add, write, options = code.code.encode, code.code.add, code.write, code.options
    acc, arrays = np.ones(100, FLOAT32), code.code.empty(100)
    ones = [np.ones(60, FLOAT32), np.ones(40, FLOAT32)]
    first = ("codes", "code", "bits")[["blocks", "bf16", "signs"].index(encode.__name__[:-7])]

    refused(
        "gradients have 99 elements in all, but the 100 elements of acc need 100",
        encode, acc, *arrays, gradients=[ones[0], ones[1][1:]], **options,
    )  # fmt: skip
    refused(
        r"gradients\[1\] is float64, but must be float32 or bfloat16",
        encode, acc, *arrays, gradients=[ones[0], np.ones(40)], **options,
    )  # fmt: skip
    refused(
        r"acc shares memory with gradients\[1\]|gradients\[1\] shares memory with acc",
        encode, acc, *arrays, gradients=[ones[0], acc[:40]], **options,
    )  # fmt: skip
    refused("gradients must be a list or tuple of tensors", encode, acc, *arrays, gradients=acc, **options)  # fmt: skip
    locked = acc.copy()
    locked.flags.writeable = False
    refused("acc is read-only", encode, locked, *arrays, gradients=ones, keep=False, **options)

    refused("targets must be a list or tuple of tensors", write, *arrays, acc, **options)
    refused(r"targets\[0\] is float64, but must be", write, *arrays, [np.ones(100)], **options)
    refused(r"targets\[1\] is read-only", write, *arrays, [ones[0], locked[:40]], **options)
    refused(r"has \d+ elements|have 60 elements in all", write, *arrays, ones[:1], **options)
    refused("shares memory with", write, *arrays, [ones[0], ones[0][:40]], **options)

    lists = [[one, one[:-1]] for one in arrays]
    refused(rf"{first}\[1\] has", add, *lists, acc, **options)
    refused(f"{first} must have at least one tensor", add, *([] for _ in arrays), acc, **options)


def test_every_code_needs_its_scales():
    (codes, scales), out = CODES["8 bits"].empty(100), np.ones(100, FLOAT32)
    refused(
        "scales has 1 tensors, but codes has 2", codec.blocks_add, [codes, codes], [scales], out
    )
    refused("codes must be one tensor, not 2", codec.blocks_write, [codes, codes], scales, [out])
