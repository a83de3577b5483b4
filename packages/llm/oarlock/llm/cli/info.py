"""`oarlock-llm info`: what a model's files say."""

import dataclasses

from oarlock.llm.cli import engine
from oarlock.llm.cli.problems import told


def info(model: engine.Model) -> None:
    """Say what a model is, without reading its weights."""
    with told(locals()):
        import rich.table
        from oarlock.llm import loading

        found = loading.load(model)
        text, formats = found.text, found.parameters.formats()
        rows = {
            "file": str(found.source),
            "format": found.format,
            "family": found.family,
            "weights": ", ".join(
                f"{size / 1e6:.1f} MB {name}" for name, size in sorted(formats.items())
            ),
            "tokenizer": type(text.tokenizer).__name__ if text.tokenizer else "none",
            "begins with": str(text.bos) if text.adds_bos else "nothing",
            "ends with": ", ".join(map(str, text.eos)) or "nothing",
            "chat template": "yes" if text.chat_template else "no",
        }
        rows |= {f"draws with {name}": f"{value:g}" for name, value in found.generation.items()}
        rows |= {
            field.name: str(getattr(found.config, field.name))
            for field in dataclasses.fields(found.config)
        }
        table = rich.table.Table(show_header=False)
        for name, value in rows.items():
            table.add_row(name, value)
        rich.print(table)
