"""What kernels accept as tensors, and how they refuse the rest: argument, index, remedy."""

import ml_dtypes
import numpy as np
import paddle
import pytest

from oarlock.native import _abi, optim
from oarlock.native._tensors import TensorList
from oarlock.native.paddle import as_numpy, from_numpy

ADAMW = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.1, "step": 1}
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def ones(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


class Exporter:
    """Memory shared through ``__dlpack__`` only, as a foreign library does."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        if options:
            raise TypeError("unknown option")  # an exporter from before DLPack 1.0
        return self.array.__dlpack__()


class Versioned(Exporter):
    """An exporter that passes on what it is asked for."""

    def __dlpack__(self, **options):
        assert options["max_version"] >= (1, 0)
        return self.array.__dlpack__(**options)


def step(p, g=None, m=None, v=None, **options):
    """AdamW on one tensor; what is not given is made to fit."""
    g, m, v = (ones(3, 4) if one is None else one for one in (g, m, v))
    optim.adamw([p], [g], [m], [v], **{**ADAMW, **options})
    return p


def test_paddle_numpy_and_dlpack_give_the_same():
    wanted = step(ones(3, 4))
    foreign = Exporter(ones(3, 4))
    step(foreign)
    tensor = paddle.ones([3, 4])
    parts = [paddle.ones([3, 4]) for _ in range(3)]
    step(tensor, *parts)
    assert np.array_equal(foreign.array, wanted) and np.array_equal(tensor.numpy(), wanted)
    mixed = paddle.ones([3, 4])
    step(mixed, Exporter(ones(3, 4)))
    assert np.array_equal(mixed.numpy(), wanted)


def test_one_list_may_mix_kinds():
    found = optim.squared_norm([paddle.ones([5]), ones(7), Exporter(ones(2, 2)), paddle.ones([1])])
    assert found == 17.0


def test_capsules_of_dlpack_1():
    tensor = Versioned(paddle.ones([3, 4]))
    step(tensor)
    assert np.array_equal(tensor.array.numpy(), step(ones(3, 4)))


def test_paddle_parameters_and_bfloat16():
    layer = paddle.nn.Linear(3, 4)
    layer.to(dtype="bfloat16")  # bfloat16() does nothing on processors without AVX-512
    before = as_numpy(layer.weight).astype(np.float32)
    optim.sgd([layer.weight], [paddle.ones([3, 4], "bfloat16")], lr=0.5)
    assert np.array_equal(as_numpy(layer.weight), (before - np.float32(0.5)).astype(BFLOAT16))


def test_views_of_paddle_tensors_that_are_contiguous():
    base = paddle.ones([2, 3, 4])
    step(base[1])
    assert np.array_equal(base[0].numpy(), ones(3, 4))
    assert np.array_equal(base[1].numpy(), step(ones(3, 4)))


def test_tensors_over_numpy_memory():
    array = ones(3, 4)
    step(from_numpy(array))
    assert np.array_equal(array, step(ones(3, 4)))


@pytest.mark.parametrize("shape", [(), (1,), (0,), (2, 0, 3), (1,) * 9])
def test_shapes_of_paddle_and_numpy_read_alike(shape):
    ours = TensorList("x", [paddle.zeros(list(shape))]).items[0]
    theirs = TensorList("x", [np.zeros(shape, np.float32)]).items[0]
    for field in ("count", "dtype", "device", "ndim", "flags"):
        assert getattr(ours, field) == getattr(theirs, field), field
    assert ours.shape[: ours.ndim] == list(shape)
    assert ours.flags & _abi.CONTIGUOUS


def read_only():
    array = ones(3, 4)
    array.flags.writeable = False
    return array


def unaligned():
    return np.zeros(49, np.uint8)[1:].view(np.float32).reshape(3, 4)


REFUSED = {
    "length": (
        dict(params=[ones(3)] * 2),
        r"grads has 1 tensors, but params has 2; .* one for each",
    ),
    "shape": (dict(m=[ones(3)]), r"m\[0\] has shape \[3\], but params\[0\] has \[3, 4\]"),
    "axes": (dict(v=[ones(12)]), r"v\[0\] has shape \[12\], but params\[0\] has \[3, 4\]"),
    "not a list": (dict(grads=ones(3, 4)), "grads must be a list or tuple of tensors, not ndarray"),
    "not a tensor": (
        dict(m=["x"]),
        r"m\[0\] must be a Paddle tensor, a NumPy array or .*, not str",
    ),
    "none": (dict(grads=[None]), r"grads\[0\] must be a Paddle tensor.*not NoneType"),
    "float64": (
        dict(params=[ones(3, 4, dtype=np.float64)]),
        r"params\[0\] is float64, but must be float32 or bfloat16; cast it",
    ),
    "float16": (dict(params=[ones(3, 4, dtype=np.float16)]), r"params\[0\] is float16"),
    "int": (dict(params=[ones(3, 4, dtype=np.int32)]), r"params\[0\] is int32"),
    "byte order": (dict(params=[ones(3, 4, dtype=">f4")]), r"params\[0\] is a type of"),
    "grad type": (
        dict(grads=[ones(3, 4, dtype=BFLOAT16)]),
        r"grads\[0\] is bfloat16 for a parameter of float32; it must be float32; cast it",
    ),
    "grad float64": (dict(grads=[ones(3, 4, dtype=np.float64)]), r"grads\[0\] is float64"),
    "state type": (
        dict(m=[ones(3, 4, dtype=BFLOAT16)]),
        r"m\[0\] is bfloat16, but must be float32; cast it",
    ),
    "read-only": (dict(params=[read_only()]), r"params\[0\] is read-only, but is updated in place"),
    "read-only state": (dict(v=[read_only()]), r"v\[0\] is read-only"),
    "strides": (dict(params=[ones(4, 3).T]), r"params\[0\] of shape \[3, 4\] is not contiguous"),
    "strided grad": (dict(grads=[ones(3, 8)[:, ::2]]), r"grads\[0\] .* is not contiguous"),
    "alignment": (dict(params=[unaligned()]), r"params\[0\] is not aligned"),
    "paddle strides": (
        dict(params=[paddle.ones([4, 3]).t()]),
        r"params\[0\] of shape \[3, 4\] is not contiguous",
    ),
    "sparse": (
        dict(grads=[paddle.sparse.sparse_coo_tensor([[0], [0]], [1.0], [3, 4])]),
        r"grads\[0\] must be dense",
    ),
    "step 0": (dict(step=0), "step must be an integer >= 1, the number of this step, not 0"),
    "step float": (dict(step=1.0), "step must be an integer >= 1"),
    "beta1": (dict(beta1=1.0), r"beta1 must be in \[0, 1\), not 1.0"),
    "beta2": (dict(beta2=-0.1), r"beta2 must be in \[0, 1\), not -0.1"),
    "lr": (dict(lr=-1.0), "lr must be finite and >= 0, not -1.0"),
    "lr nan": (dict(lr=float("nan")), "lr must be finite"),
    "lr text": (dict(lr="0.1"), "lr must be a number, not '0.1'"),
    "eps": (dict(eps=float("inf")), "eps must be finite"),
    "decay": (dict(weight_decay=-0.1), "weight_decay must be"),
    "scale": (dict(grad_scale=float("nan")), "grad_scale must be finite"),
    "seed": (dict(rounding_seed=-1), r"rounding_seed must be an integer in \[0, 2\^64\)"),
    "seed float": (dict(rounding_seed=1.5), "rounding_seed must be"),
    "threads 0": (dict(threads=0), "threads must be between 1 and 1024, not 0"),
    "threads bool": (dict(threads=True), "threads must be a positive integer or None, not True"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused_with_the_argument_and_the_remedy(what):
    changes, message = REFUSED[what]
    arguments = {name: [ones(3, 4)] for name in ("params", "grads", "m", "v")}
    arguments |= ADAMW | changes
    before = {
        name: np.array(arguments[name][0], copy=True) for name in ("m", "v") if name not in changes
    }
    with pytest.raises(ValueError, match=message):
        optim.adamw(**arguments)
    for name, array in before.items():
        assert np.array_equal(arguments[name][0], array), "nothing was changed"


def test_shared_memory_is_refused():
    a, b = ones(8), ones(8)
    with pytest.raises(ValueError, match=r"shares memory with"):
        step(a, a, b, ones(8))
    with pytest.raises(ValueError, match=r"\[1\] shares memory with params\[0\]|\[0\] shares"):
        optim.sgd([a, a], [b, b], lr=0.1)
    base = ones(16)
    with pytest.raises(ValueError, match="shares memory"):
        optim.sgd([base[:8], base[7:15]], [b, b], lr=0.1)
    optim.sgd([base[:8], base[8:]], [b, b], lr=0.1)  # neighbours, and one gradient for two


def test_sgd_options():
    a, b = [ones(3)], [ones(3)]
    for options, message in [
        (dict(momentum=0.9), "momentum=0.9 needs momentum_buffers"),
        (dict(nesterov=True), "nesterov=True needs momentum > 0"),
        (dict(momentum_buffers=[ones(3)]), "of no use with momentum=0; pass None"),
        (
            dict(momentum=0.9, momentum_buffers=[ones(3)], dampening=2.0),
            r"dampening must be in \[0",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            optim.sgd(a, b, lr=0.1, **options)


def test_row_column_shapes():
    for grads, rows, columns, message in [
        (ones(3), ones(3), ones(3), r"grads\[0\] has shape \[3\]; it must be a matrix"),
        (ones(3, 4), ones(4), ones(4), r"rows\[0\] has shape \[4\], but grads\[0\] .* needs \[3\]"),
        (ones(3, 4), ones(3), ones(4, 1), r"columns\[0\] has shape \[4, 1\].* needs \[4\]"),
    ]:
        with pytest.raises(ValueError, match=message):
            optim.row_column_mean_squares([grads], [rows], [columns], decay=0.5)


SOPHIA = {"lr": 0.1, "beta1": 0.9, "gamma": 0.05, "eps": 1e-12, "weight_decay": 0.1}
LARS = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1, "trust_coefficient": 0.1, "eps": 0.0}
ADAFACTOR = {"lr": 0.1, "clip_threshold": 1.0, "eps_scale": 1e-3, "relative": True}
OPTIONS = {
    "sophia": SOPHIA,
    "schedule_free_adamw": ADAMW | {"average_weight": 0.5},
    "lars": LARS,
    "mars_adamw": ADAMW | {"gamma": 0.025, "step": 2},
    "adafactor": ADAFACTOR | {"weight_decay": 0.1},
    "adam_mini": ADAMW,
}
LIST_SHAPES = {
    "sophia": [(3, 4)] * 4,
    "schedule_free_adamw": [(3, 4)] * 4,
    "lars": [(3, 4)] * 3,
    "mars_adamw": [(3, 4)] * 5,
    "adafactor": [(3, 4), (3, 4), (3,), (4,)],
    "adam_mini": [(3, 4), (3, 4), (3, 4), (2,)],
}
READ = {"sophia": {1, 3}, "adafactor": {1, 2, 3}}  # lists that are only read; of others the grads
PLACES = [(kernel, index) for kernel, shapes in LIST_SHAPES.items() for index in range(len(shapes))]
PAIRS = [
    (kernel, first, second)
    for kernel, first in PLACES
    for second in range(first)
    if not {first, second} <= READ.get(kernel, {1})
]
WRONG = [
    ("sophia", dict(gamma=-1.0), "gamma must be finite and >= 0, not -1.0"),
    ("sophia", dict(beta1=1.0), r"beta1 must be in \[0, 1\)"),
    (
        "schedule_free_adamw",
        dict(average_weight=1.5),
        r"average_weight must be in \[0, 1\], not 1.5",
    ),
    ("schedule_free_adamw", dict(average_weight=float("nan")), r"average_weight must be in"),
    ("schedule_free_adamw", dict(step=0), "step must be an integer >= 1"),
    ("lars", dict(trust_coefficient=0.0), "trust_coefficient must be finite and > 0, not 0.0"),
    ("lars", dict(momentum=0.0, nesterov=True), "nesterov=True needs momentum > 0, not 0"),
    ("lars", dict(eps=-1.0), "eps must be finite and >= 0"),
    ("mars_adamw", dict(max_norm=0.0), "max_norm must be > 0 or None, not 0"),
    ("mars_adamw", dict(max_norm=-1.0), "max_norm must be finite and >= 0, not -1.0"),
    ("mars_adamw", dict(gamma=float("inf")), "gamma must be finite"),
    ("adafactor", dict(clip_threshold=0.0), "clip_threshold must be > 0 or None, not 0"),
    ("adafactor", dict(eps_scale=-1.0), "eps_scale must be finite and >= 0"),
    ("adam_mini", dict(beta2=1.0), r"beta2 must be in \[0, 1\), not 1.0"),
    ("adam_mini", dict(step=1.5), "step must be an integer >= 1"),
]


def lists_of(kernel):
    return [[ones(*shape)] for shape in LIST_SHAPES[kernel]]


@pytest.mark.parametrize("kernel, changes, message", WRONG)
def test_options_are_refused_by_name(kernel, changes, message):
    lists = lists_of(kernel)
    with pytest.raises(ValueError, match=message):
        getattr(optim, kernel)(*lists, **OPTIONS[kernel] | changes)
    assert all((group[0] == 1).all() for group in lists), "nothing was changed"


@pytest.mark.parametrize("kernel, index", PLACES)
def test_lists_of_every_kernel_are_checked(kernel, index):
    shape = LIST_SHAPES[kernel][index]
    strided = ones(*(2 * n for n in shape))[tuple(slice(None, None, 2) for _ in shape)]
    for wrong, message in [
        ([ones(5, 7)], r"\[0\] has shape \["),
        ([ones(*shape, dtype=np.float64)], r"\[0\] is float64"),
        ([strided], "is not contiguous"),
        ([ones(*shape)] * 2, r"has [12] tensors, but params has [12]; there must be one for each"),
    ]:
        lists = lists_of(kernel)
        lists[index] = wrong
        with pytest.raises(ValueError, match=message):
            getattr(optim, kernel)(*lists, **OPTIONS[kernel])
        assert all((one == 1).all() for group in lists for one in group), "nothing was changed"


@pytest.mark.parametrize("kernel, first, second", PAIRS)
def test_lists_of_every_kernel_need_memory_of_their_own(kernel, first, second):
    base, lists = ones(12), lists_of(kernel)
    for index in (first, second):
        shape = LIST_SHAPES[kernel][index]
        lists[index] = [base[: np.prod(shape)].reshape(shape)]
    with pytest.raises(ValueError, match="shares memory with"):
        getattr(optim, kernel)(*lists, **OPTIONS[kernel])


@pytest.mark.parametrize("kernel, index", PLACES)
def test_lists_that_are_updated_must_be_writable(kernel, index):
    lists = lists_of(kernel)
    lists[index][0].flags.writeable = False
    if index in READ.get(kernel, {1}):
        getattr(optim, kernel)(*lists, **OPTIONS[kernel])
        return
    with pytest.raises(ValueError, match=r"\[0\] is read-only, but is updated in place"):
        getattr(optim, kernel)(*lists, **OPTIONS[kernel])


@pytest.mark.parametrize(
    "blocks, message",
    [
        (ones(5), r"v\[0\] has 5 blocks, but the 12 elements of params\[0\] do not divide evenly"),
        (ones(24), r"v\[0\] has 24 blocks, but the 12 elements"),
        (ones(0), r"v\[0\] has 0 blocks, but the 12 elements"),
        (ones(2, 1), r"v\[0\] has shape \[2, 1\]; it must be a vector \[blocks\]"),
        (ones(2, dtype=BFLOAT16), r"v\[0\] is bfloat16, but must be float32"),
    ],
)
def test_blocks_must_divide_the_tensor(blocks, message):
    with pytest.raises(ValueError, match=message):
        optim.adam_mini([ones(3, 4)], [ones(3, 4)], [ones(3, 4)], [blocks], **ADAMW)


@pytest.mark.parametrize(
    "shape, rows, columns, message",
    [
        ((12,), 12, 1, r"params\[0\] has shape \[12\]; it must be a matrix"),
        ((2, 3, 2), 6, 2, r"params\[0\] has shape \[2, 3, 2\]; it must be a matrix"),
        ((3, 4), 4, 3, r"rows\[0\] has shape \[4\], but params\[0\] .* needs \[3\]"),
        ((3, 4), 3, 3, r"columns\[0\] has shape \[3\], but params\[0\] .* needs \[4\]"),
    ],
)
def test_factors_must_fit_the_matrix(shape, rows, columns, message):
    lists = [ones(*shape)], [ones(*shape)], [ones(rows)], [ones(columns)]
    with pytest.raises(ValueError, match=message):
        optim.adafactor(*lists, **OPTIONS["adafactor"])


def test_sophia_hessian_arguments():
    options = {"beta2": 0.9, "scale": 8.0}
    for grads, h, changes, message in [
        (ones(3), ones(4), {}, r"h\[0\] has shape \[4\], but grads\[0\] has \[3\]"),
        (ones(3, dtype=np.float64), ones(3), {}, r"grads\[0\] is float64"),
        (ones(3), ones(3, dtype=BFLOAT16), {}, r"h\[0\] is bfloat16, but must be float32"),
        (ones(3, 4), read_only(), {}, r"h\[0\] is read-only"),
        (ones(3), ones(3), dict(scale=-1.0), "scale must be finite and >= 0, not -1.0"),
        (ones(3), ones(3), dict(beta2=1.0), r"beta2 must be in \[0, 1\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            optim.sophia_hessian([grads], [h], **options | changes)
    shared = ones(3)
    with pytest.raises(ValueError, match="shares memory"):
        optim.sophia_hessian([shared], [shared], **options)


def test_paddle_lists_are_read_in_one_call():
    tensors = [paddle.ones([2]) for _ in range(100)]
    assert TensorList("x", tensors).api is not None
