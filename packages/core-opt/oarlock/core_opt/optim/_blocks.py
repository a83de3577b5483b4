"""Matrices cut into blocks of at most a given size, remainders included, and put together."""

import dataclasses
import itertools

import paddle


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tiling:
    """Blocks of one shape that tile a part of a matrix.

    Args:
        top, left: first row and column of the part.
        down, across: number of blocks in each direction.
        height, width: of a block.
    """

    top: int
    left: int
    down: int
    across: int
    height: int
    width: int

    def cut(self, stack: paddle.Tensor) -> paddle.Tensor:
        """Blocks [n * down * across, height, width] of matrices [n, rows, columns]."""
        rows, columns = self.down * self.height, self.across * self.width
        part = stack[:, self.top : self.top + rows, self.left : self.left + columns]
        part = part.reshape([-1, self.down, self.height, self.across, self.width])
        part = part.transpose([0, 1, 3, 2, 4])
        return part.reshape([-1, self.height, self.width])

    def join(self, blocks: paddle.Tensor) -> paddle.Tensor:
        """The part [n, down * height, across * width] of the matrices: the way back."""
        part = blocks.reshape([-1, self.down, self.across, self.height, self.width])
        part = part.transpose([0, 1, 3, 2, 4])
        return part.reshape([-1, self.down * self.height, self.across * self.width])


def tilings(rows: int, columns: int, size: int) -> list[list[Tiling]]:
    """Tilings of a matrix by bands of rows, from the top left: one to four, in rows of one or two.

    Blocks are size x size; the last in a direction has what remains.
    """
    return [
        [
            Tiling(top=top, left=left, down=down, across=across, height=height, width=width)
            for left, across, width in _parts(columns, size)
        ]
        for top, down, height in _parts(rows, size)
    ]


def flat(bands: list[list[Tiling]]) -> list[Tiling]:
    """All tilings in the order that ``joined`` wants."""
    return list(itertools.chain.from_iterable(bands))


def joined(bands: list[list[Tiling]], blocks: list[paddle.Tensor]) -> paddle.Tensor:
    """Matrices [n, rows, columns] of the blocks of each tiling."""
    parts = iter(blocks)
    found = [
        paddle.concat([tiling.join(next(parts)) for tiling in band], axis=-1) for band in bands
    ]
    return paddle.concat(found, axis=-2)


def _parts(length: int, size: int) -> list[tuple[int, int, int]]:
    """Offset, count and length of the whole blocks, and of the remainder if there is one."""
    count, rest = divmod(length, size)
    whole = [(0, count, size)] if count else []
    return whole + ([(count * size, 1, rest)] if rest else [])
