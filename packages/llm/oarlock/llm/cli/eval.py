"""``oarlock-llm eval``: run tasks, list them, compare results, and plan how many items a comparison needs."""

import sys
from pathlib import Path
from typing import Annotated, Literal, Optional

import typer
from rich.console import Console
from rich.table import Table

_UNBOUNDED = 100_000  # characters; tables are as wide as their cells

app = typer.Typer(
    name="eval",
    help="Evaluate language models on tasks.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Patterns = Annotated[str, typer.Option(help="Names or patterns, separated by commas.")]


@app.command("run")
def run(
    models: Annotated[
        list[str],
        typer.Argument(
            help="A Hugging Face folder, a .gguf file, a llama2.c .bin, a folder of `models.save`, an rwkv.cpp "
            "file, or a server as URL#MODEL. A tokenizer that is not among the files stands behind a comma, as in "
            "model.bin,tok512.bin: `bytes`, a llama2.c .bin, a SentencePiece .model, a tokenizer.json."
        ),
    ],
    tasks: Patterns = "*",
    limit: Annotated[Optional[int], typer.Option(help="Items a task; all without it.")] = None,
    variant: Annotated[str, typer.Option(help="Of the prompts.")] = "default",
    output: Annotated[Path, typer.Option(help="Folder: MODEL.json.gz each, report.html.")] = Path(
        "eval-results"
    ),
    cache: Annotated[
        Optional[Path],
        typer.Option(help="SQLite file of answers; OUTPUT/answers.sqlite without it."),
    ] = None,
    weights: Annotated[
        Optional[str],
        typer.Option(
            help="Run in the engine, with weights as fp32, bf16, int8 or int4; without it by plain passes, "
            "where scores depend on nothing else."
        ),
    ] = None,
    rows: Annotated[int, typer.Option(help="Texts a plain pass; 1 makes scores exact.")] = 1,
    start: Annotated[
        Optional[int], typer.Option(help="Id of the token that begins every text.")
    ] = None,
    chat: Annotated[bool, typer.Option(help="Ask a server's chat instead of completions.")] = False,
    api_key_env: Annotated[
        Optional[str], typer.Option(help="Environment variable that holds the server's key.")
    ] = None,
    allow_weak_sandbox: Annotated[
        bool, typer.Option(help="Run generated programs even where the kernel cannot confine them.")
    ] = False,
) -> None:
    """Score models; go on from the cache after an interruption; write results and a report."""
    from oarlock.llm import eval as evaluation
    from oarlock.llm.cli import eval_models
    from oarlock.llm.eval import report

    with _complaints():
        chosen = evaluation.select(_split(tasks))
        for spec in models:
            eval_models.check(spec, api_key_env=api_key_env)
        results = []
        output.mkdir(parents=True, exist_ok=True)
        with evaluation.AnswerCache(cache or output / "answers.sqlite") as answers:
            for spec in models:
                backend = eval_models.open_backend(
                    spec,
                    weights=weights,
                    rows=rows,
                    start=start,
                    chat=chat,
                    api_key_env=api_key_env,
                )
                result = evaluation.evaluate(
                    backend,
                    chosen,
                    limit=limit,
                    variant=variant,
                    cache=answers,
                    skip_unsupported=True,
                    allow_weak_sandbox=allow_weak_sandbox,
                    progress=True,
                )
                path = output / f"{eval_models.file_name(result.model)}.json.gz"
                result.save(path)
                results.append(result)
                _print_scores(result)
                typer.echo(f"wrote {path}")
        report.write(results, output / "report.html")
        typer.echo(f"wrote {output / 'report.html'}")


@app.command("list")
def list_(
    tasks: Patterns = "*",
    ability: Annotated[Optional[str], typer.Option(help="Only this one.")] = None,
    tier: Annotated[Optional[str], typer.Option(help="Only this one.")] = None,
    language: Annotated[Optional[str], typer.Option(help="en or zh.")] = None,
) -> None:
    """List tasks: ability, tier, language, kind, licence."""
    from oarlock.llm import eval as evaluation

    with _complaints():
        found = evaluation.select(
            _split(tasks), ability=ability, tier=tier, language=language  # type: ignore[arg-type]
        )
    table = Table("task", "ability", "tiers", "language", "asks for", "licence", "description")
    for task in found:
        table.add_row(
            task.name,
            task.ability,
            ", ".join(task.tiers),
            task.language,
            task.output,
            task.licence,
            task.description,
        )
    _print(table)
    typer.echo(f"{len(found)} tasks")


@app.command("report")
def report_(
    results: Annotated[list[Path], typer.Argument(help="Files that `run` wrote.")],
    output: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("report.html"),
    worst: Annotated[int, typer.Option(help="Items a task to read.")] = 10,
) -> None:
    """Write one HTML page that compares results."""
    from oarlock.llm import eval as evaluation
    from oarlock.llm.eval import report

    with _complaints():
        report.write([evaluation.EvalResult.load(path) for path in results], output, worst=worst)
    typer.echo(f"wrote {output}")


@app.command("compare")
def compare(
    first: Annotated[Path, typer.Argument(help="File that `run` wrote.")],
    second: Annotated[Path, typer.Argument(help="Another.")],
) -> None:
    """Paired differences with intervals and tests, task by task; positive where the first is better."""
    from oarlock.llm import eval as evaluation
    from oarlock.llm.eval.statistics import holm

    with _complaints():
        a, b = (evaluation.EvalResult.load(path) for path in (first, second))
        found = evaluation.compare_all(a, b)
    corrected = holm([1.0 if c.p_value != c.p_value else c.p_value for c in found.values()])
    table = Table(
        "task", "difference", "95 % interval", "p", "p (Holm)", "better : worse", "sign test"
    )
    for (name, c), p in zip(found.items(), corrected):
        table.add_row(
            name,
            f"{c.difference:+.4f}",
            f"{c.low:+.4f} to {c.high:+.4f}",
            f"{c.p_value:.4f}",
            f"{p:.4f}",
            f"{c.better} : {c.worse}",
            f"{c.sign_p_value:.4f}",
        )
    _print(table)


@app.command("power")
def power(
    difference: Annotated[float, typer.Option(help="To be found, such as 0.03.")] = 0.03,
    accuracy: Annotated[float, typer.Option(help="Of one of the models, about.")] = 0.5,
    correlation: Annotated[
        float, typer.Option(help="Of the models' scores over items; `compare` measures it.")
    ] = 0.5,
    items: Annotated[
        Optional[int], typer.Option(help="Instead: what do so many items find?")
    ] = None,
    significance: float = 0.05,
    probability: Annotated[float, typer.Option(help="Of finding it.")] = 0.8,
) -> None:
    """How many items find a difference, or what difference so many items find."""
    from oarlock.llm.eval import statistics

    with _complaints():
        if not 0 < difference < 1:
            raise ValueError(f"difference must be above 0 and below 1, got {difference:g}.")
        other = accuracy + difference if accuracy + difference <= 1 else accuracy - difference
        variance = statistics.variance_of_difference(accuracy, other, correlation)
        options = {"variance": variance, "significance": significance, "power": probability}
        if items is not None:
            least = statistics.detectable_difference(items, **options)  # type: ignore[arg-type]
            typer.echo(
                f"{items} items find a difference of {least:.4f} with probability {probability:g}"
            )
        else:
            needed = statistics.items_needed(difference, **options)  # type: ignore[arg-type]
            typer.echo(
                f"{needed} items find a difference of {difference:g} with probability {probability:g}"
            )


def _split(patterns: str) -> list[str]:
    return [pattern.strip() for pattern in patterns.split(",") if pattern.strip()]


class _complaints:
    """Turns what a user can mend into a message and code 2."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Literal[None] | type, error: BaseException | None, _: object) -> None:
        from oarlock.llm.eval.backends import EndpointError
        from oarlock.llm.eval.data import DataMissing
        from oarlock.llm.eval.sandbox import SandboxUnavailable

        mendable = (ValueError, DataMissing, EndpointError, SandboxUnavailable, FileNotFoundError)
        if isinstance(error, mendable):
            typer.echo(f"oarlock-llm: {error}", err=True)
            raise typer.Exit(2) from error


def _print(table: Table) -> None:
    """Whole cells always: in further lines where a terminal is narrow, as wide as they are elsewhere."""
    for column in table.columns:
        column.overflow = "fold"
    Console(width=None if sys.stdout.isatty() else _UNBOUNDED).print(table)


def _print_scores(result) -> None:  # type: ignore[no-untyped-def]
    table = Table(
        "task", "score", "value", "standard error", "95 % interval", "items", title=result.model
    )
    for name, task in result.tasks.items():
        e = task.estimate()
        table.add_row(
            name,
            task.primary,
            f"{e.value:.4f}",
            f"{e.standard_error:.4f}",
            f"{e.low:.4f} to {e.high:.4f}",
            str(e.n) + (f" ({task.truncated} truncated)" if task.truncated else ""),
        )
    _print(table)
    for name, reason in result.refused.items():
        typer.echo(f"not run: {name}: {reason}")


if __name__ == "__main__":
    app()
