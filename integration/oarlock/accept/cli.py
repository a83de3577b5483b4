"""The command line: `oarlock-accept`, or `./pants accept`, which runs this file."""

import typer

from oarlock.accept.commands import compare, doctor, environment, listing, report, run

app = typer.Typer(
    help="Reproduces the acceptance criteria of Oarlock, one command each.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("list")(listing.list_)
app.command("show")(listing.show)
app.command("run")(run.run)
app.command("prepare")(environment.prepare_)
app.add_typer(environment.peers_app, name="peers")
app.command("report")(report.report)
app.command("compare")(compare.compare)
app.command("doctor")(doctor.doctor)


def main() -> None:
    """The entry point."""
    app()


if __name__ == "__main__":
    main()
