"""DIG's SphereNet as it is published, without the compiled libraries that it asks for.

torch_scatter and torch_sparse have no builds for recent PyTorch; the little that DIG uses of them is written
here with PyTorch's own operators.
"""

import importlib.util
import sys
import types
from pathlib import Path

import torch


def sum_by(values, index, dim=0, dim_size=None, reduce="sum"):
    """`torch_scatter.scatter`, along the first axis."""
    assert dim == 0
    size = int(index.max()) + 1 if dim_size is None else dim_size
    out = torch.zeros((size, *values.shape[1:]), dtype=values.dtype)
    if reduce == "sum":
        return out.index_add(0, index, values)
    return out.scatter_reduce(0, index, values, reduce="a" + reduce, include_self=False)


class SparseTensor:
    """`torch_sparse.SparseTensor`: rows picked from a matrix in CSR order."""

    def __init__(self, row, col, value, sparse_sizes):
        order = torch.argsort(row * sparse_sizes[1] + col)
        self.rows, self.cols, self.values = row[order], col[order], value[order]
        self.count = sparse_sizes[0]

    @property
    def storage(self):
        return types.SimpleNamespace(
            row=lambda: self.rows, col=lambda: self.cols, value=lambda: self.values
        )

    def __getitem__(self, picked):
        counts = torch.bincount(self.rows, minlength=self.count)
        first = torch.cumsum(counts, 0) - counts
        counts, first = counts[picked], first[picked]
        rows = torch.repeat_interleave(torch.arange(len(picked)), counts)
        before = torch.repeat_interleave(torch.cumsum(counts, 0) - counts, counts)
        entries = first[rows] + torch.arange(len(rows)) - before
        result = SparseTensor.__new__(SparseTensor)
        result.rows, result.cols, result.values = rows, self.cols[entries], self.values[entries]
        result.count = len(picked)
        return result

    def set_value(self, value):
        return self

    def sum(self, dim):
        return torch.bincount(self.rows, minlength=self.count)


class _Mended:
    """PyTorch for DIG's geometry.

    DIG takes an edge's torsion to itself for 2π, or for 0 where rounding leaves more than 0: here always for 2π.
    """

    def __getattr__(self, name):
        return getattr(torch, name)

    def atan2(self, sine, cosine):
        limit = 4 * torch.finfo(sine.dtype).eps * cosine.detach().abs()
        return torch.atan2(torch.where(sine.abs() <= limit, 0.0, sine), cosine)


def spherenet(neighbours):
    """The modules of DIG's SphereNet and of its features.

    Args:
        neighbours: (positions, r, batch) → [2, edges], sources and targets, instead of torch_cluster's search.
    """
    import torch_geometric  # noqa: F401  before the modules below, which it would take for real ones

    sys.modules["torch_scatter"] = types.ModuleType("torch_scatter")
    sys.modules["torch_scatter"].scatter = sum_by
    sys.modules["torch_sparse"] = types.ModuleType("torch_sparse")
    sys.modules["torch_sparse"].SparseTensor = SparseTensor
    folder = Path(importlib.util.find_spec("dig").submodule_search_locations[0])
    for part in ("threedgraph", "threedgraph.method"):  # which import all of DIG's models
        package = sys.modules[f"dig.{part}"] = types.ModuleType(f"dig.{part}")
        package.__path__ = [str(folder.joinpath(*part.split(".")))]
    from dig.threedgraph.method.spherenet import features, spherenet
    from dig.threedgraph.utils import geometric_computing

    geometric_computing.torch = _Mended()
    spherenet.radius_graph = neighbours
    return spherenet, features
