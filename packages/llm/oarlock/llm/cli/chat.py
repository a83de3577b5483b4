"""`oarlock-llm chat`: a conversation at the terminal."""

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from oarlock.llm.cli import engine
from oarlock.llm.cli.problems import told
from oarlock.llm.cli.tokenizer import read_tokenizer


def chat(
    model: engine.Model,
    weights: engine.Weights = "int8",
    system: Annotated[
        Optional[str], typer.Option(help="What the model is told before the conversation.")
    ] = None,
    load: Annotated[
        Optional[Path], typer.Option(help="Go on from a JSON file that /save wrote.")
    ] = None,
    chat_template: engine.ChatTemplate = None,
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
    """Talk with a model; /help tells the commands. Ctrl-C stops an answer, Ctrl-D ends the program.

    Lines of a pipe are messages too, and only answers are written.

    \b
    oarlock-llm chat Qwen2.5-0.5B-Instruct --weights int4 --system "Be brief."
    echo "Who are you?" | oarlock-llm chat model.gguf
    """
    with told(locals()):
        import dataclasses

        typed: dict[str, Any] = {
            "max_tokens": max_tokens,
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "min_p": min_p,
            "repetition_penalty": repetition_penalty,
            "seed": seed,
        }
        engine.drawing(**typed)  # before the model is read, which takes longer
        template = None if chat_template is None else chat_template.read_text(encoding="utf-8")
        from oarlock.llm.cli.conversation import Conversation
        from oarlock.llm.cli.terminal import talk
        from oarlock.llm.engine import LLM

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
        if template is not None:
            llm.text = dataclasses.replace(llm.text, chat_template=template)
        engine.tell(weights, llm.opened.rounded_anew)
        params = engine.drawing(llm.opened.generation, **typed)
        name = next(iter(adapters), None)
        conversation = Conversation(llm, params, system=system, adapter=name)
        if load is not None:
            conversation.load(load)
    with told(()):  # what is refused from here on was said in the conversation
        talk(conversation)
