"""`oarlock-llm generate`: a prompt, continued."""

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from oarlock.llm.cli import engine
from oarlock.llm.cli.problems import told


def generate(
    model: engine.Model,
    prompt: Annotated[
        Optional[str], typer.Argument(help="The text's beginning; read from stdin without it.")
    ] = None,
    weights: engine.Weights = "int8",
    max_tokens: Annotated[Optional[int], typer.Option(help="Most tokens to add.")] = 256,
    temperature: Annotated[float, typer.Option(help="0 for the most probable tokens.")] = 0.8,
    top_p: Annotated[float, typer.Option(help="Among tokens of this probability together.")] = 1.0,
    seed: Annotated[Optional[int], typer.Option(help="Of the draws.")] = None,
    adapter: Annotated[
        Optional[Path], typer.Option(help="A LoRA folder of PEFT, for this model.")
    ] = None,
    max_length: engine.MaxLength = None,
    cache_format: engine.CacheFormat = "fp32",
    guesses: engine.Guesses = 0,
    draft: engine.Draft = None,
    draft_weights: engine.DraftWeights = None,
    threads: engine.Threads = None,
    ranks: engine.Ranks = 1,
    rank_listen: engine.RankListen = None,
    rank_token_file: engine.RankTokenFile = None,
) -> None:
    """Continue a text, as it comes."""
    with told():
        given = sys.stdin.read() if prompt is None else prompt
        from oarlock.llm.engine import LLM, SamplingParams

        params = SamplingParams(
            max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed
        )
        sizes = engine.config(
            cache_format=cache_format, guesses=guesses, threads=threads, most_texts=1
        )
        several = engine.ranks(ranks, rank_listen, rank_token_file)
        adapters = {} if adapter is None else {str(adapter): adapter}
        llm = LLM(
            model,
            weights=weights,
            max_length=max_length,
            config=sizes,
            adapters=adapters,
            draft=draft,
            draft_weights=draft_weights,
            ranks=several,
        )
        sys.stdout.write(given)
        for delta in llm.stream(given, params, adapter=next(iter(adapters), None)):
            if delta.error is not None:
                raise ValueError(delta.error)
            sys.stdout.write(delta.text)
            sys.stdout.flush()
        sys.stdout.write("\n")
