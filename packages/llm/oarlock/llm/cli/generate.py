"""`oarlock-llm generate`: a prompt, continued."""

import sys
from typing import Annotated, Any, Optional

import typer

from oarlock.llm.cli import engine
from oarlock.llm.cli.problems import told
from oarlock.llm.cli.tokenizer import read_tokenizer


def generate(
    model: engine.Model,
    prompt: Annotated[
        Optional[str], typer.Argument(help="The text's beginning; read from stdin without it.")
    ] = None,
    weights: engine.Weights = "int8",
    tokenizer: engine.Tokenizer = None,
    max_tokens: engine.MaxTokens = None,
    temperature: engine.Temperature = None,
    top_k: engine.TopK = None,
    top_p: engine.TopP = None,
    min_p: engine.MinP = None,
    repetition_penalty: engine.RepetitionPenalty = None,
    seed: engine.Seed = None,
    generation_config: engine.Drawing = "auto",
    adapter: engine.Adapter = None,
    max_length: engine.MaxLength = None,
    cache_format: engine.CacheFormat = "fp32",
    guesses: engine.Guesses = None,
    draft: engine.Draft = None,
    draft_weights: engine.DraftWeights = None,
    threads: engine.Threads = None,
    ranks: engine.Ranks = 1,
    rank_listen: engine.RankListen = None,
    rank_token_file: engine.RankTokenFile = None,
) -> None:
    """Continue a text, as it comes."""
    with told(locals()):
        given = sys.stdin.read() if prompt is None else prompt
        from oarlock.llm.engine import LLM

        drawn: dict[str, Any] = {
            "max_tokens": max_tokens,
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "min_p": min_p,
            "repetition_penalty": repetition_penalty,
            "seed": seed,
        }
        engine.drawing(**drawn)  # before the model is read, which takes longer
        sizes = engine.config(
            cache_format=cache_format, guesses=guesses, threads=threads, most_texts=1
        )
        several = engine.ranks(ranks, rank_listen, rank_token_file)
        adapters = engine.alone(adapter)
        llm = LLM(
            model,
            tokenizer=None if tokenizer is None else read_tokenizer(tokenizer),
            weights=weights,
            max_length=max_length,
            generation_config=generation_config,
            config=sizes,
            adapters=adapters,
            draft=draft,
            draft_weights=draft_weights,
            ranks=several,
        )
        engine.tell(weights, llm.opened.rounded_anew)
        params = engine.drawing(llm.opened.generation, **drawn)
        tokens = llm.text.encode(given)
        if max_tokens is None:  # nobody has asked for as many as the model may not hold
            params = engine.shortened(params, len(tokens), llm.engine.max_length)
        deltas = llm.stream(tokens, params, adapter=next(iter(adapters), None))
        sys.stdout.write(given)
        for delta in deltas:
            if delta.error is not None:
                raise ValueError(delta.error)
            sys.stdout.write(delta.text)
            sys.stdout.flush()
        sys.stdout.write("\n")
