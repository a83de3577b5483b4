"""`oarlock-llm load`: put load on a server and check every answer."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from oarlock.llm.cli.problems import told


def load(
    url: Annotated[str, typer.Argument(help="Of the server, as http://127.0.0.1:8000.")],
    model: Annotated[str, typer.Option(help="As /v1/models names it.")],
    seconds: Annotated[float, typer.Option(help="For how long requests are begun.")] = 30.0,
    streams: Annotated[int, typer.Option(help="Requests at once, at most.")] = 64,
    rate: Annotated[
        Optional[float],
        typer.Option(
            help="Requests a second that arrive by chance; one after the other without it."
        ),
    ] = None,
    max_tokens: Annotated[int, typer.Option(help="Of a text.")] = 64,
    prompt_words: Annotated[int, typer.Option(help="Of a prompt, about.")] = 16,
    cancel: Annotated[float, typer.Option(help="Share of clients that go away.")] = 0.1,
    slow: Annotated[float, typer.Option(help="Share of clients that read slowly.")] = 0.05,
    malformed: Annotated[float, typer.Option(help="Share of malformed requests.")] = 0.05,
    check_texts: Annotated[
        bool, typer.Option(help="Compare texts with those of the same prompts asked alone.")
    ] = True,
    pid: Annotated[
        Optional[int], typer.Option(help="Of the server on this machine: its memory is watched.")
    ] = None,
    terminate_after: Annotated[
        Optional[float], typer.Option(help="Send SIGTERM to --pid after so many seconds.")
    ] = None,
    api_key_env: Annotated[
        Optional[str], typer.Option(help="Environment variable that holds the server's key.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    output: Annotated[
        Optional[Path], typer.Option(help="Folder for load.json and load.png.")
    ] = None,
) -> None:
    """Put load on a server, with clients that cancel, read slowly and send nonsense; exit with 1 if an
    answer is lost, mixed or wrong."""
    with told(locals()):
        import os

        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        from oarlock.llm.server.load import LoadPlan, run

        if api_key_env is not None and api_key_env not in os.environ:
            raise ValueError(f"--api-key-env must name a variable that is set, got {api_key_env}.")
        plan = LoadPlan(
            url=url.rstrip("/"),
            model=model,
            key=None if api_key_env is None else os.environ[api_key_env],
            duration_s=seconds,
            streams=streams,
            rate=rate,
            max_tokens=max_tokens,
            prompt_words=prompt_words,
            cancel=cancel,
            slow=slow,
            malformed=malformed,
            check_texts=check_texts,
            pid=pid,
            terminate_after_s=terminate_after,
            seed=seed,
        )
        columns = (BarColumn(), TextColumn("{task.fields[ended]} requests"), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("", total=seconds, ended=0)
            report = run(
                plan,
                progress=lambda ended, now: progress.update(
                    task, completed=min(now, seconds), ended=ended
                ),
            )
        typer.echo(str(report))
        if output is not None:
            output.mkdir(parents=True, exist_ok=True)
            report.save(output / "load.json")
            report.plot(output / "load.png")
    raise typer.Exit(1 if report.bad else 0)
