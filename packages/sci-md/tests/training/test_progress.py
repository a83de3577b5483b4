"""What a terminal shows."""

import io

from rich.console import Console

from oarlock.sci_md.training import Terminal, Trainer, TrainingSettings

from oarlock.sci_md.potentials import build


def shown(datasets, **options):
    train, validation, config = datasets
    out = io.StringIO()
    console = Console(file=out, width=120, **options)
    settings = TrainingSettings(steps=4, validate_every=2, plots=False)
    trainer = Trainer(
        build(config), train, settings, validation=validation, reporter=Terminal(console)
    )
    trainer.run()
    return out.getvalue()


def test_a_bar_and_lines(datasets):
    text = shown(datasets, force_terminal=True)
    assert "4/4" in text and "steps/s" in text and "100%" in text
    assert text.count("forces MAE") == 2


def test_lines_only_where_there_is_no_terminal(datasets):
    text = shown(datasets)
    assert "4/4" not in text
    lines = [line for line in text.splitlines() if line.startswith("step")]
    assert len(lines) == 2 and "meV/atom" in lines[0]
