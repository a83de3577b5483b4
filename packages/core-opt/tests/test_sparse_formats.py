"""Every sparse format: to dense and back, products on both paths, and what is refused."""

import numpy as np
import paddle
import pytest
from oarlock.core_opt.sparse import BSR, COO, CSR, NM


def normals(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def matrix(rows=24, columns=40, density=0.4, block=(4, 8)):
    """A dense matrix that is zero in some blocks."""
    grid = (rows // block[0], columns // block[1])
    kept = np.random.default_rng(1).random(grid) < density
    return paddle.to_tensor(
        normals(rows, columns) * np.kron(kept, np.ones(block)).astype("float32")
    )


def build(kind, dense):
    if kind is BSR:
        return BSR.from_dense(dense, block=(4, 8))
    return kind.from_dense(dense)


each_format = pytest.mark.parametrize("kind", [CSR, COO, BSR, NM])


def expected(kind, dense):
    """What the format keeps of the matrix."""
    if kind is not NM:
        return dense.numpy()
    groups = dense.numpy().reshape(-1, 4, dense.shape[1])
    order = np.argsort(-np.abs(groups), axis=1, kind="stable")[:, 2:]
    kept = groups.copy()
    np.put_along_axis(kept, order, 0.0, axis=1)
    return kept.reshape(dense.shape)


@each_format
def test_to_dense_gives_back_what_is_kept(kind):
    dense = matrix()
    sparse = build(kind, dense)
    np.testing.assert_array_equal(sparse.to_dense().numpy(), expected(kind, dense))
    assert sparse.density == pytest.approx(np.prod(sparse.values.shape) / dense.size)
    assert kind.__name__ in repr(sparse) and "24 x 40" in repr(sparse)


@each_format
@pytest.mark.parametrize("lead", [(5,), (2, 3), ()])
def test_both_paths_give_the_dense_product_and_its_gradients(kind, lead):
    dense, weights = matrix(), paddle.to_tensor(normals(*lead, 40, seed=2))
    results = []
    for path in ("native", "paddle", None):
        sparse = build(kind, dense)
        values = sparse.values.detach()
        values.stop_gradient = False
        x = paddle.to_tensor(normals(*lead, 24, seed=3), stop_gradient=False)
        y = sparse.with_values(values).matmul(x, path=path)
        (y * weights).sum().backward()
        results.append([y.numpy(), x.grad.numpy(), values.grad.numpy()])
    wanted = normals(*lead, 24, seed=3) @ expected(kind, dense)
    np.testing.assert_allclose(results[0][0], wanted, atol=1e-4)
    for others in results[1:]:
        for ours, right in zip(others, results[0]):
            np.testing.assert_allclose(ours, right, atol=1e-4)


@each_format
def test_float64_takes_the_operators(kind):
    dense = matrix().astype("float64")
    x = paddle.to_tensor(normals(5, 24).astype("float64"))
    y = build(kind, dense).matmul(x)
    np.testing.assert_allclose(y.numpy(), x.numpy() @ expected(kind, dense), atol=1e-12)
    with pytest.raises(ValueError, match='path="native" takes float32 on the CPU'):
        build(kind, dense).matmul(x, path="native")


@each_format
def test_an_empty_matrix(kind):
    dense = paddle.zeros([24, 40])
    sparse = build(kind, dense)
    x = paddle.to_tensor(normals(3, 24))
    for path in ("native", "paddle"):
        assert not sparse.matmul(x, path=path).numpy().any()
    assert not sparse.to_dense().numpy().any()


@each_format
def test_products_refuse_what_does_not_fit(kind):
    sparse = build(kind, matrix())
    with pytest.raises(ValueError, match=r"x has shape \[5, 23\], but must be \[..., 24\]"):
        sparse.matmul(paddle.zeros([5, 23]))
    with pytest.raises(ValueError, match="x is paddle.float64, but the values are paddle.float32"):
        sparse.matmul(paddle.zeros([5, 24], "float64"))
    with pytest.raises(ValueError, match="path must be one of"):
        sparse.matmul(paddle.zeros([5, 24]), path="fast")
    with pytest.raises(ValueError, match="values have shape .*, but the structure needs"):
        sparse.with_values(sparse.values[1:])


def test_conversions_between_entries_keep_the_bits():
    csr = CSR.from_dense(matrix())
    back = csr.to_coo().to_csr()
    assert np.array_equal(back.pointers, csr.pointers)
    assert np.array_equal(back.indices, csr.indices)
    assert np.array_equal(back.values.numpy(), csr.values.numpy())


def test_coo_adds_up_entries_of_the_same_place_in_any_order():
    values = paddle.to_tensor([1.0, 2.0, 4.0, 8.0], stop_gradient=False)
    coo = COO.from_entries((2, 3), values, rows=[1, 0, 1, 0], columns=[2, 1, 2, 0])
    np.testing.assert_array_equal(coo.to_dense().numpy(), [[8, 2, 0], [0, 0, 5]])
    (coo.to_dense() * paddle.to_tensor([[1.0, 2, 3], [4, 5, 6]])).sum().backward()
    np.testing.assert_array_equal(values.grad.numpy(), [6, 2, 6, 1])


def test_a_mask_chooses_what_is_kept():
    dense, mask = matrix(), np.zeros((24, 40), bool)
    mask[3, 5] = mask[7, 0] = True
    csr = CSR.from_dense(dense, mask=mask)
    np.testing.assert_array_equal(csr.to_dense().numpy(), dense.numpy() * mask)
    with pytest.raises(ValueError, match=r"mask must be bool of shape \[6, 5\]"):
        BSR.from_dense(dense, block=(4, 8), mask=mask)


ONE = paddle.ones([1])
FAULTS = [
    (
        lambda: CSR(shape=(2, 2), values=ONE, pointers=[0, 1], indices=[0]),
        "pointers has 2 elements",
    ),
    (lambda: CSR(shape=(1, 2), values=ONE, pointers=[0, 2], indices=[0]), "pointers must rise"),
    (
        lambda: CSR(shape=(1, 2), values=ONE, pointers=[0, 1], indices=[2]),
        "indices must be in .0, 2.",
    ),
    (lambda: CSR(shape=(1, 2), values=ONE, pointers=[0, 1], indices=[-1]), "indices must be in .0"),
    (lambda: CSR(shape=(1, 2), values=ONE, pointers=[0, 1], indices=[0.5]), "vector of integers"),
    (
        lambda: CSR(shape=(1, 3), values=paddle.ones([2]), pointers=[0, 2], indices=[1, 1]),
        "indices must rise within a row",
    ),
    (lambda: CSR(shape=(1,), values=ONE, pointers=[0, 1], indices=[0]), "shape must be"),
    (
        lambda: CSR(shape=(1, 1), values=[1.0], pointers=[0, 1], indices=[0]),
        "values must be a paddle",
    ),
    (
        lambda: COO(shape=(2, 2), values=paddle.ones([2]), rows=[1, 0], columns=[0, 0]),
        "must be sorted",
    ),
    (lambda: COO(shape=(2, 2), values=ONE, rows=[2], columns=[0]), "rows must be in .0, 2."),
    (
        lambda: BSR(shape=(5, 4), values=paddle.ones([1, 2, 2]), pointers=[0, 1], indices=[0]),
        "block must divide the matrix of 5 x 4",
    ),
    (
        lambda: BSR(shape=(4, 4), values=paddle.ones([1, 4]), pointers=[0, 1], indices=[0]),
        "values must be .blocks",
    ),
    (lambda: BSR.from_dense(matrix(), block=(5, 8)), "block must divide"),
    (lambda: NM.from_dense(paddle.ones([6, 2])), "rows must divide into groups of 4"),
    (lambda: NM.from_dense(paddle.ones([8, 2]), keep=5), "keep must be in .1, 4."),
    (
        lambda: NM(shape=(4, 1), values=paddle.ones([2, 1]), codes=np.array([[1], [0]], np.uint8)),
        "codes must be below 4 and rise",
    ),
    (
        lambda: NM(shape=(4, 1), values=paddle.ones([2, 1]), codes=np.array([[1], [2]])),
        "codes must be uint8",
    ),
    (lambda: CSR.from_dense(paddle.ones([3])), "dense must be a matrix"),
]


@pytest.mark.parametrize("call, message", FAULTS)
def test_wrong_parts_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_rows_that_are_empty_may_be_followed_by_smaller_columns():
    CSR(shape=(4, 4), values=paddle.ones([3]), pointers=[0, 0, 2, 2, 3], indices=[1, 3, 0])
    CSR(shape=(3, 4), values=paddle.ones([3]), pointers=[0, 3, 3, 3], indices=[0, 1, 3])
