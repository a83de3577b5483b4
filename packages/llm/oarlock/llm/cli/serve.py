"""`oarlock-llm serve`: a model behind OpenAI's interface."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from oarlock.llm.cli import engine
from oarlock.llm.cli.problems import told
from oarlock.llm.cli.tokenizer import read_tokenizer

if TYPE_CHECKING:
    from oarlock.llm.server import ApiKeys

KEYS = "OARLOCK_API_KEYS"


def serve(
    model: engine.Model,
    weights: engine.Weights = "int8",
    name: Annotated[
        Optional[str],
        typer.Option(help="As clients call the model; the file's or folder's name without it."),
    ] = None,
    tokenizer: engine.Tokenizer = None,
    chat_template: engine.ChatTemplate = None,
    adapter: engine.Adapters = None,
    max_length: engine.MaxLength = None,
    cache_tokens: engine.CacheTokens = None,
    cache_format: engine.CacheFormat = "fp32",
    guesses: engine.Guesses = None,
    draft: engine.Draft = None,
    draft_weights: engine.DraftWeights = None,
    generation_config: engine.Drawing = "auto",
    threads: engine.Threads = None,
    ranks: engine.Ranks = 1,
    rank_listen: engine.RankListen = None,
    rank_token_file: engine.RankTokenFile = None,
    host: Annotated[
        str, typer.Option(help="To listen at; 0.0.0.0 for other machines.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="To listen at; 0 for any that is free.")
    ] = 8000,
    api_key_file: Annotated[
        Optional[Path],
        typer.Option(
            help=f"A key a line; requests must show one. Or the environment variable {KEYS}, "
            "keys separated by commas."
        ),
    ] = None,
    concurrency: Annotated[int, typer.Option(help="Requests at once.")] = 64,
    queue: Annotated[
        int, typer.Option(help="Requests that wait; more are refused with 429.")
    ] = 256,
    prompt_tokens: Annotated[
        Optional[int], typer.Option(help="Most of a prompt; the model's context without it.")
    ] = None,
    max_tokens: Annotated[
        Optional[int], typer.Option(help="Most of a text; the model's context without it.")
    ] = None,
    body_mib: Annotated[int, typer.Option(help="Most of a request's body, MiB.")] = 8,
    request_s: Annotated[float, typer.Option(help="For a whole request, seconds.")] = 600.0,
    drain_s: Annotated[
        float, typer.Option(help="For requests in flight after SIGTERM, seconds.")
    ] = 30.0,
    tool_style: Annotated[
        Optional[str],
        typer.Option(
            help="How the model writes calls: hermes, llama3 or mistral; as its template shows "
            "without it."
        ),
    ] = None,
    cors: Annotated[
        Optional[list[str]], typer.Option(help="Origin of web pages that may use the server.")
    ] = None,
    page: Annotated[bool, typer.Option(help="Show a chat page at /.")] = True,
    access_log: Annotated[
        bool, typer.Option(help="Write a line of JSON a request to stderr; never what it says.")
    ] = True,
) -> None:
    """Serve a model to OpenAI's clients, with a chat page at / and metrics at /metrics."""
    with told(locals()):
        import logging

        from oarlock.llm.server import Limits, Server, ServerConfig, create_app, listeners

        config = ServerConfig(
            limits=Limits(
                body_bytes=body_mib << 20,
                prompt_tokens=prompt_tokens,
                completion_tokens=max_tokens,
                concurrency=concurrency,
                queue=queue,
                request_s=request_s,
                drain_s=drain_s,
            ),
            tool_style=tool_style,  # type: ignore[arg-type]
            cors_origins=tuple(cors or ()),
            chat_page=page,
        )
        keys = read_keys(api_key_file)
        several = engine.ranks(ranks, rank_listen, rank_token_file)
        if not model.exists():
            raise ValueError(
                f"MODEL must be a file or folder, but {model} is not there, and nothing is downloaded: fetch it "
                "first, for example with `hf download`."
            )
        adapters = engine.adapters(adapter)
        template = None if chat_template is None else chat_template.read_text(encoding="utf-8")
        given = None if tokenizer is None else read_tokenizer(tokenizer)
        sockets = listeners(host, port)
        try:
            # The engine comes last: it takes the time.
            from oarlock.llm.engine import open_service

            # In place of what Paddle has set up: lines of the access log are JSON and nothing else.
            logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
            logging.getLogger("oarlock.llm.server.access").propagate = access_log
            service = open_service(
                model,
                name=name,
                tokenizer=given,
                weights=weights,
                max_length=max_length,
                generation_config=generation_config,
                config=engine.config(
                    cache_tokens=cache_tokens,
                    cache_format=cache_format,
                    guesses=guesses,
                    threads=threads,
                    most_texts=concurrency,
                ),
                adapters=adapters,
                draft=draft,
                draft_weights=draft_weights,
                ranks=several,
                most_waiting=queue,
            )
            engine.tell(weights, service.rounded_anew)
            if template is not None:
                service.chat_template = template
            app = create_app(service, config=config, keys=keys)
            try:
                Server(app).run(sockets)
            finally:
                service.close()
        finally:
            for one in sockets:
                one.close()


def read_keys(path: Path | None) -> "ApiKeys":
    """The keys of a file, or of the environment, whose variable is then taken away from children.

    Raises:
        ValueError: both are given, or a key is malformed.
    """
    import os

    from oarlock.llm.server import ApiKeys

    given = os.environ.pop(KEYS, None)
    if path is not None and given is not None:
        raise ValueError(f"--api-key-file and {KEYS} must not be given both.")
    if path is not None:
        return ApiKeys.from_file(path)
    try:
        return ApiKeys([] if given is None else [key.strip() for key in given.split(",")])
    except ValueError as error:
        raise ValueError(f"{KEYS}: {error}") from error
