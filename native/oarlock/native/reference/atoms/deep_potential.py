"""Oracle of ``oarlock.native.deep_potential``: one atom after the other, in float64.

Arguments are those of the kernels; energies, forces and virial are returned.
"""

import numpy as np

from oarlock.native._deep_potential_model import Array, Layer, Model, embed


def environment(vectors: Array, smooth: float, cutoff: float) -> tuple[Array, Array]:
    """Rows (s, s r / |r|) and their derivatives by r. [n, 3] → [n, 4], [n, 4, 3]."""
    r = np.sqrt(np.square(vectors).sum(1))
    unit = vectors / r[:, None]
    u = np.clip((r - smooth) / (cutoff - smooth), 0.0, 1.0)
    w = 1.0 - u**3 * (10.0 - 15.0 * u + 6.0 * u**2)
    falls = -30.0 * u**2 * (1.0 - u) ** 2 / (cutoff - smooth)
    s, slope = w / r, falls / r - w / r**2
    rows = np.concatenate([s[:, None], s[:, None] * unit], axis=1)
    slopes = np.empty((len(r), 4, 3))
    slopes[:, 0] = slope[:, None] * unit
    across = (np.eye(3) - unit[:, :, None] * unit[:, None, :]) / r[:, None, None]
    slopes[:, 1:] = slope[:, None, None] * unit[:, :, None] * unit[:, None, :]
    slopes[:, 1:] += s[:, None, None] * across
    return rows, slopes


def fit(layers: list[Layer], descriptor: Array) -> tuple[float, Array]:
    """Energy and its slope by the descriptor."""
    x, kept = descriptor, []
    for layer in layers[:-1]:
        t = np.tanh(x @ layer.weight + layer.bias)
        kept.append(t)
        x = layer.shortcut(x) + layer.times * t
    energy = float(x @ layers[-1].weight[:, 0] + layers[-1].bias[0])
    g = layers[-1].weight[:, 0]
    for layer, t in zip(layers[-2::-1], kept[::-1]):
        back = layer.weight @ (g * layer.times * (1.0 - t * t))
        inputs, outputs = layer.weight.shape
        if outputs in (inputs, 2 * inputs):
            back = back + g.reshape(-1, inputs).sum(0)
        g = back
    return energy, g


def evaluate(
    model: Model, positions, species, offsets, neighbours, *, shifts=None, owned=None
) -> tuple[Array, Array, Array]:
    rows_of = len(offsets) - 1 if owned is None else owned
    energies, forces, virial = np.empty(rows_of), np.zeros_like(positions), np.zeros((3, 3))
    expected = np.sum(model.sel)
    for i in range(rows_of):
        edges = np.arange(offsets[i], offsets[i + 1])
        vectors = positions[neighbours[edges]] - positions[i]
        if shifts is not None:
            vectors = vectors + shifts[edges]
        near = np.square(vectors).sum(1) < model.cutoff**2
        edges, vectors = edges[near], vectors[near]
        center, kinds = species[i], species[neighbours[edges]]
        rows, slopes = environment(vectors, model.smooth, model.cutoff)
        rows = (rows - model.mean[center]) / model.deviation[center]
        slopes = slopes / model.deviation[center][:, None]
        features, by_row = np.empty((2, len(edges), model.width))
        nothing = -model.mean[center] / model.deviation[center]
        sums = np.zeros((model.width, 4))
        for kind in range(model.kinds):
            layers, here = model.embeddings[model.net(center, kind)], kinds == kind
            features[here], by_row[here], _ = embed(layers, rows[here, 0])
            missing = model.sel[kind] - here.sum()
            sums += missing * np.outer(embed(layers, nothing[:1])[0][0], nothing)
        sums = (sums + features.T @ rows) / expected
        first = sums[: model.axis]
        energy, g = fit(list(model.fittings[center]), (sums @ first.T).ravel())
        energies[i] = energy * model.scale + model.reference[center]
        g = g.reshape(model.width, model.axis)
        by_sums = g @ first
        by_sums[: model.axis] += g.T @ sums
        by_sums = by_sums / expected
        by_rows = features @ by_sums
        by_rows[:, 0] += (by_row * (rows @ by_sums.T)).sum(1)
        by_vector = model.scale * np.einsum("nc,ncx->nx", by_rows, slopes)
        forces[i] += by_vector.sum(0)
        np.subtract.at(forces, neighbours[edges], by_vector)
        virial -= by_vector.T @ vectors
    return energies, forces, virial
