"""The descriptor of the Deep Potential: sums over neighbours of features times environment rows.

A neighbour at r has the row R = (s, s x/r, s y/r, s z/r), s = w(r) / r with a switch w that falls from 1
to 0, less a mean and divided by a deviation. With features G(R₀) of an embedding network,

    T = 1/n (Σ_j G_j ⊗ R_j + (n − count) G⁰ ⊗ R⁰),  D = T Tᵀ with the first columns only on the right.

R⁰ is the row of nothing (s = 0): it is zero where the mean is. DeePMD-kit fills lists with such rows
up to n = Σ sel; here the sum stands for them, and may as well be negative. Source: DeepPot-SE, 1805.09003.
"""

import paddle
from paddle import Tensor, nn

from oarlock.sci_md.graph import Graph
from oarlock.sci_md.ops import gather, lengths
from oarlock.sci_md.potentials.deep_potential_config import DeepPotentialConfig
from oarlock.sci_md.potentials.deep_potential_layers import EmbeddingNet


def switch(distances: Tensor, smooth: float, cutoff: float) -> Tensor:
    """w = 1 − 10 u³ + 15 u⁴ − 6 u⁵, u = (r − smooth) / (cutoff − smooth) within 0 … 1. [E] → [E]."""
    u = paddle.clip((distances - smooth) / (cutoff - smooth), 0.0, 1.0)
    square = u * u
    return square * u * (square * -6.0 + u * 15.0 - 10.0) + 1.0


def environment(vectors: Tensor, smooth: float, cutoff: float) -> Tensor:
    """The rows (s, s x/r, s y/r, s z/r). [E, 3] → [E, 4]."""
    distances = lengths(vectors)
    radial = (switch(distances, smooth, cutoff) / distances).unsqueeze(-1)
    return paddle.concat([radial, radial * vectors / distances.unsqueeze(-1)], axis=-1)


class Descriptor(nn.Layer):
    """[N, embedding[-1] · axis], one row an atom.

    Attributes:
        mean: [elements, 4], of the environment rows of atoms of each element.
        deviation: [elements, 4].
    """

    def __init__(self, config: DeepPotentialConfig) -> None:
        super().__init__()
        self.config = config
        kinds = len(config.elements)
        self.register_buffer("mean", paddle.zeros([kinds, 4], dtype=config.dtype))
        self.register_buffer("deviation", paddle.ones([kinds, 4], dtype=config.dtype))
        self.register_buffer(
            "sel", paddle.to_tensor(config.sel, dtype=config.dtype), persistable=False
        )
        nets = kinds if config.one_side else kinds * kinds
        self.embeddings = nn.LayerList(
            EmbeddingNet(config.embedding, timestep=config.embedding_timestep) for _ in range(nets)
        )

    def net(self, center: int, neighbour: int) -> EmbeddingNet:
        kinds = len(self.config.elements)
        found = self.embeddings[neighbour if self.config.one_side else center * kinds + neighbour]
        assert isinstance(found, EmbeddingNet)
        return found

    def forward(self, graph: Graph) -> Tensor:
        kinds = len(self.config.elements)
        sums = paddle.zeros(
            [graph.species.shape[0], 4, self.config.embedding[-1]], dtype=self.sel.dtype
        )
        center_species = gather(graph.species, graph.centers)
        rows = environment(graph.vectors, self.config.smooth, self.config.cutoff)
        rows = rows - gather(self.mean, center_species)
        rows = rows / gather(self.deviation, center_species)
        # One row of zeros after the last, for the places of lists that no neighbour fills. Concatenation
        # with a constant has no second derivative in Paddle 3.3.
        rows = nn.functional.pad(rows, [0, 1, 0, 0])
        for neighbour in range(kinds):
            slots = neighbour_slots(graph, neighbour)
            if self.config.one_side:
                sums = sums + self._sums(rows, slots, self.net(0, neighbour))
                continue
            for center in range(kinds):
                atoms = atoms_of(graph.species, center)
                part = self._sums(rows, gather(slots, atoms), self.net(center, neighbour))
                sums = paddle.index_add(sums, atoms, 0, part)
        sums = (sums + self._of_nothing(graph)) / float(sum(self.config.sel))
        first = sums[:, :, : self.config.axis]
        product = paddle.matmul(sums, first, transpose_x=True)  # [N, features, axis]
        return product.reshape([-1, self.config.embedding[-1] * self.config.axis])

    def _sums(self, rows: Tensor, slots: Tensor, net: EmbeddingNet) -> Tensor:
        """Σ_j G_j ⊗ R_j. slots: [n, K], indices of rows → [n, 4, features]."""
        here = gather(rows, slots.flatten())
        features = net(here[:, :1])
        width = slots.shape[1]
        return paddle.matmul(
            here.reshape([-1, width, 4]),
            features.reshape([-1, width, self.config.embedding[-1]]),
            transpose_x=True,
        )

    def _of_nothing(self, graph: Graph) -> Tensor:
        """(sel − count) G⁰ ⊗ R⁰ over the neighbours' elements. [N, 4, features]."""
        kinds = len(self.config.elements)
        nothing = -self.mean / self.deviation  # [elements, 4]
        tables = []
        for neighbour in range(kinds):
            features = [self.net(c, neighbour)(nothing[c : c + 1, :1]) for c in range(kinds)]
            tables.append(nothing.unsqueeze(-1) * paddle.concat(features, axis=0).unsqueeze(1))
        table = paddle.stack(tables, axis=1)  # [elements, elements, 4, features]
        counts = paddle.stack([neighbour_counts(graph, kind) for kind in range(kinds)], axis=1)
        missing = self.sel - counts.astype(self.sel.dtype)  # [N, elements]
        of_centers = nn.functional.one_hot(graph.species, kinds).astype(self.sel.dtype)
        weights = of_centers.unsqueeze(-1) * missing.unsqueeze(1)  # [N, elements, elements]
        flat = paddle.matmul(
            weights.reshape([-1, kinds * kinds]), table.reshape([kinds * kinds, -1])
        )
        return flat.reshape([-1, 4, self.config.embedding[-1]])


def atoms_of(species: Tensor, kind: int) -> Tensor:
    """Which atoms are of one element. [N] → [n] int64."""
    return paddle.nonzero(species == kind).flatten()


def neighbour_counts(graph: Graph, kind: int) -> Tensor:
    """How many neighbours of one element each atom has. [N] int64."""
    return paddle.diff(gather(_edges_before(graph, kind)[1], graph.offsets))


def neighbour_slots(graph: Graph, kind: int) -> Tensor:
    """Lists of equal length K of each atom's edges to neighbours of one element.

    Returns:
        [N, K] int64, indices of edges; the number of edges where there is none. K ≥ 1.
    """
    chosen, before = _edges_before(graph, kind)
    starts = gather(before, graph.offsets)  # [N + 1]
    rank = before[:-1] - gather(starts, graph.centers)
    most = paddle.diff(starts).max().clip(min=1)
    edges = paddle.nonzero(chosen).flatten()
    places = gather(graph.centers * most + rank, edges)
    empty = paddle.zeros([graph.species.shape[0] * most], dtype="int64") + graph.centers.shape[0]
    return paddle.scatter(empty, places, edges).reshape([graph.species.shape[0], -1])


def _edges_before(graph: Graph, kind: int) -> tuple[Tensor, Tensor]:
    """Which edges end at one element, [E] bool, and how many of them are before each, [E + 1] int64."""
    chosen = gather(graph.species, graph.neighbours) == kind
    with_it = paddle.cumsum(chosen.astype("int64"))
    return chosen, paddle.concat([paddle.zeros([1], dtype="int64"), with_it])
