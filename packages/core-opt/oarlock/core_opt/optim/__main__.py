"""Print the table of optimisers: ``python -m oarlock.core_opt.optim``."""

from . import info, list

ROWS = [("name", "source", "state", "description")]
ROWS += [
    (
        name,
        f"{info(name).paper} ({info(name).year})",
        f"{info(name).state_bytes_per_parameter:g} B",
        info(name).description,
    )
    for name in list()
]
WIDTHS = [max(len(row[column]) for row in ROWS) for column in range(4)]

if __name__ == "__main__":
    for row in ROWS:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, WIDTHS)).rstrip())
