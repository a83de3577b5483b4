"""Print the table of optimisers: ``python -m oarlock.core_opt.optim``."""

from . import info, list


def table() -> str:
    """One line for each optimiser: name, source, bytes of state for a float32 weight."""
    rows = [("name", "source", "state", "description")]
    for name in list():
        entry = info(name)
        state = f"{entry.state_bytes_per_parameter:g} B"
        rows.append((name, f"{entry.paper} ({entry.year})", state, entry.description))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


if __name__ == "__main__":
    print(table())
