"""`oarlock-llm bench`: how fast a model runs here."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from oarlock.llm.cli import engine
from oarlock.llm.cli.problems import told

if TYPE_CHECKING:
    from oarlock.llm.engine.speed import Case, Speed
    from oarlock.native.decoder import Model


def bench(
    model: Annotated[
        Optional[Path],
        typer.Argument(
            help="A Hugging Face folder, a .gguf file, a llama2.c .bin, or a folder of `models.save`."
        ),
    ] = None,
    shape: Annotated[
        Optional[str],
        typer.Option(
            help="Instead of MODEL: random weights of a published model's sizes, such as llama-15m, llama-135m, "
            "qwen2-500m, llama-1.1b, llama-7b, gpt2-124m, moe-270m."
        ),
    ] = None,
    weights: Annotated[
        str, typer.Option(help="Formats, separated by commas: fp32, bf16, int8, int4.")
    ] = "int8",
    batch: Annotated[str, typer.Option(help="Texts at once; several separated by commas.")] = "1",
    prompt: Annotated[str, typer.Option(help="Tokens of a prompt; likewise.")] = "128",
    new: Annotated[int, typer.Option(help="Tokens of a text.")] = 64,
    repeat: Annotated[int, typer.Option(help="Repetitions; 6 or more give an interval.")] = 6,
    warm_up: Annotated[int, typer.Option(help="Repetitions before that do not count.")] = 1,
    cache_format: engine.CacheFormat = "fp32",
    threads: engine.Threads = None,
    seed: Annotated[int, typer.Option(help="Of prompts and random weights.")] = 0,
    json: Annotated[
        Optional[Path],
        typer.Option(
            help="Write everything measured to this file, - for stdout instead of tables."
        ),
    ] = None,
) -> None:
    """Measure tokens a second and how long one waits for them.

    \b
    oarlock-llm bench model.gguf --weights int4
    oarlock-llm bench --shape llama-135m --weights int8,int4 --batch 1,8 --prompt 16,512 --json speed.json
    """
    with told(locals()):
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        formats = [one.strip() for one in weights.split(",")]
        cases = _cases(_numbers("batch", batch), _numbers("prompt", prompt), new)
        if (model is None) == (shape is None):
            raise ValueError("give either MODEL or --shape.")
        found: list[tuple[str, Any, int, list[Speed]]] = []
        columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            total = len(formats) * len(cases) * (warm_up + repeat)
            task = bar.add_task("", total=total)
            for format in formats:
                packed = _pack(model, shape, format, seed, max(c.prompt + c.new for c in cases))
                measured, used = _measure(
                    packed,
                    cases,
                    cache_format=cache_format,
                    threads=threads,
                    repetitions=repeat,
                    warm_up=warm_up,
                    seed=seed,
                    progress=lambda: bar.advance(task),
                )
                size = sum(one.nbytes for one in packed.matrices())
                found.append((format, used, size, measured))
        if json is not None:
            _write(json, model=str(model or shape), random=model is None, found=found, cache_format=cache_format, new=new)  # fmt: skip
        if json is None or str(json) != "-":
            _show(str(model or shape), found)


def _numbers(name: str, text: str) -> list[int]:
    try:
        return [int(one) for one in text.split(",")]
    except ValueError as error:
        raise ValueError(f"{name} must be numbers separated by commas, got {text!r}.") from error


def _cases(batches: list[int], prompts: list[int], new: int) -> list["Case"]:
    from oarlock.llm.engine.speed import Case

    return [Case(batch=b, prompt=p, new=new) for b in batches for p in prompts]


def _pack(model: Path | None, shape: str | None, format: str, seed: int, length: int) -> "Model":
    from oarlock.llm import loading
    from oarlock.llm.engine import packing
    from oarlock.llm.engine.shapes import SHAPES, RandomParameters

    if model is not None:
        found = loading.load(model)
        return packing.pack(found.family, found.config, found.parameters, weights=format)
    if shape not in SHAPES:
        raise ValueError(f"shape must be one of {', '.join(SHAPES)}, got {shape!r}.")
    family, config = SHAPES[shape]
    most = getattr(config, "max_length", packing.UNLIMITED)
    if length > most:
        raise ValueError(
            f"prompt and new must be at most {most} together for {shape}, got {length}."
        )
    return packing.pack(family, config, RandomParameters(family, config, seed=seed), weights=format)


def _measure(
    packed: "Model",
    cases: list["Case"],
    *,
    cache_format: str,
    threads: int | None,
    **options: Any,
) -> tuple[list["Speed"], int]:
    from oarlock.llm.engine import Engine, EngineConfig
    from oarlock.llm.engine.speed import measure
    from oarlock.native import threads as native_threads

    config = EngineConfig(
        most_texts=max(case.batch for case in cases),
        cache_tokens=max(case.positions for case in cases),
        cache_format=cache_format,
        share_prefixes=False,
        threads=threads,
    )
    engine = Engine(packed, config)
    return [measure(engine, case, **options) for case in cases], (
        threads or native_threads.physical_cores()
    )


def _show(name: str, found: list[tuple[str, Any, int, list["Speed"]]]) -> None:
    from rich.console import Console
    from rich.table import Table

    for format, threads, size, measured in found:
        table = Table(title=f"{name}, {format}: {size / 1e6:.0f} MB of matrices, {threads} threads")
        for column in ("batch", "prompt", "new"):
            table.add_column(column, justify="right")
        table.add_column("prefill, tokens/s")
        table.add_column("decode, tokens/s")
        table.add_column("first token p50 / p99, ms")
        table.add_column("between tokens p50 / p99, ms")
        for speed in measured:
            table.add_row(
                *(str(getattr(speed.case, name)) for name in ("batch", "prompt", "new")),
                *(f"{one.median:.1f} ({one.low:.1f} to {one.high:.1f})" for one in (speed.prefill, speed.decode)),  # fmt: skip
                f"{speed.first_token_p50 * 1e3:.1f} / {speed.first_token_p99 * 1e3:.1f}",
                f"{speed.between_p50 * 1e3:.2f} / {speed.between_p99 * 1e3:.2f}",
            )
        Console().print(table)
    typer.echo("Medians of repetitions, with the interval that holds the median with 95 % confidence (least and largest below 6).")  # fmt: skip


def _write(
    path: Path,
    *,
    model: str,
    random: bool,
    found: list[tuple[str, Any, int, list["Speed"]]],
    cache_format: str,
    new: int,
) -> None:
    import dataclasses
    import json
    import platform

    from oarlock.llm import installed
    from oarlock.native import info

    values = {
        "model": model,
        "random_weights": random,
        "cache_format": cache_format,
        "version": installed.version(),
        "platform": platform.platform(),
        "native": str(info()),
        "results": [
            {"weights": format, "threads": threads, "matrix_bytes": size}
            | dataclasses.asdict(speed)
            for format, threads, size, measured in found
            for speed in measured
        ],
    }
    text = json.dumps(values, indent=2) + "\n"
    if str(path) == "-":
        typer.echo(text, nl=False)
    else:
        path.write_text(text, encoding="utf-8")
        typer.echo(f"wrote {path}")
