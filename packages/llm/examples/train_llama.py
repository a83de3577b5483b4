"""Train a small LLaMA on a text file; Ctrl-C and the same command again continue exactly.

    python train_llama.py TEXT FOLDER [--steps 1000] [--vocab-size 1024] [--width 128] [--layers 4]

FOLDER gets the tokenizer, the tokens, a checkpoint while training, the model
(``oarlock.llm.models.load``), and ``run.json``, which says of what text and settings they are: another
text or other settings need another folder. Every 50 steps a line tells the losses, speed and time left.
"""

import argparse
import hashlib
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

import paddle
from oarlock.llm import models
from oarlock.llm.data import BatchSampler, TokenFile, eval_batches, split, write_tokens
from oarlock.llm.tokenizers import BPETokenizer
from oarlock.native.paddle import accelerate

BATCH, LENGTH, REPORT, HEAD = 8, 128, 50, 32


def description(text: str, options: argparse.Namespace) -> dict[str, Any]:
    """What the contents of a folder depend on."""
    settings = {key: value for key, value in vars(options).items() if key not in ("text", "folder")}
    return {"text_sha256": hashlib.sha256(text.encode()).hexdigest(), **settings}


def check_folder(folder: Path, wanted: dict[str, Any]) -> None:
    """Refuse a folder of another text or of other settings."""
    path = folder / "run.json"
    if not path.exists():
        for name in ("tokenizer.json", "text.tokens", "checkpoint", "model.safetensors"):
            if (folder / name).exists():
                raise ValueError(f"{folder} has a {name} but no run.json; use another FOLDER.")
        return
    try:
        found = dict(json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is no description of a run; use another FOLDER.") from error
    changed = [
        (
            "another TEXT"
            if key == "text_sha256"
            else f"--{key.replace('_', '-')} {found.get(key)}, not {value}"
        )
        for key, value in wanted.items()
        if found.get(key) != value
    ]
    if changed:
        raise ValueError(f"{folder} was made with {'; '.join(changed)}. Use another FOLDER.")


def prepared(
    options: argparse.Namespace,
) -> tuple[models.llama.LlamaConfig, TokenFile, BPETokenizer]:
    """The configuration, the tokens of the text and their tokenizer, both made once."""
    if options.steps < 1:
        raise ValueError(f"--steps must be 1 or more, got {options.steps}.")
    if options.width < HEAD or options.width % HEAD:
        raise ValueError(
            f"--width must be a multiple of {HEAD}, the size of a head, got {options.width}."
        )
    config = models.llama.LlamaConfig(
        vocab_size=options.vocab_size,
        hidden_size=options.width,
        num_layers=options.layers,
        num_heads=options.width // HEAD,
        max_length=2 * LENGTH,
    )
    text, folder = options.text.read_text(encoding="utf-8"), options.folder
    wanted = description(text, options)
    check_folder(folder, wanted)
    tokenizer_path, tokens_path = folder / "tokenizer.json", folder / "text.tokens"
    if not tokenizer_path.exists():
        lines = text.splitlines(keepends=True)
        made = BPETokenizer.train(lines, vocab_size=options.vocab_size)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "run.json").write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
        made.save(tokenizer_path)
    tokenizer = BPETokenizer.from_file(tokenizer_path)
    if not tokens_path.exists():
        write_tokens(tokens_path, tokenizer.encode(text), tokenizer=tokenizer_path.name)
    return config, TokenFile(tokens_path), tokenizer


@paddle.no_grad()
def validate(model, tokens) -> float:
    """Mean loss over at most 20 batches of the end of the text, nats a token."""
    losses = []
    for number, batch in enumerate(eval_batches(tokens, BATCH, LENGTH)):
        if number == 20:
            break
        losses.append(model.loss(*batch).item())
    return sum(losses) / len(losses)


def save_checkpoint(path: Path, model, optimizer, sampler) -> None:
    partial = path.with_name(path.name + ".partial")
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "sampler": sampler.state_dict(),
    }
    paddle.save(state, str(partial))
    partial.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--vocab-size", type=int, default=1024)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    options = parser.parse_args()
    accelerate()
    try:
        config, tokens, tokenizer = prepared(options)
        train, held_out = split(tokens, validation=0.1)
        sampler = BatchSampler(train, BATCH, LENGTH)
    except (OSError, ValueError) as error:
        print(f"train_llama.py: {error}", file=sys.stderr)
        sys.exit(2)
    model = models.create("llama", config)
    rate = paddle.optimizer.lr.CosineAnnealingDecay(options.learning_rate, options.steps)
    optimizer = paddle.optimizer.AdamW(
        rate,
        parameters=model.parameters(),
        beta2=0.95,
        weight_decay=0.1,
        grad_clip=paddle.nn.ClipGradByGlobalNorm(1.0),
    )
    checkpoint = options.folder / "checkpoint"
    if checkpoint.exists():
        state = paddle.load(str(checkpoint))
        model.set_state_dict(state["model"])
        optimizer.set_state_dict(state["optimizer"])
        sampler.load_state_dict(state["sampler"])
        print(f"continuing after step {sampler.batch}")
    print(f"{model.num_parameters():,} parameters, {len(train):,} tokens to train on")
    interrupts: list[int] = []  # Ctrl-C: the step is finished and saved first
    signal.signal(signal.SIGINT, lambda number, _: interrupts.append(number))
    begun, first = time.perf_counter(), sampler.batch
    while sampler.batch < options.steps:
        loss = model.loss(*next(sampler))
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        rate.step()
        if sampler.batch % REPORT == 0 or sampler.batch == options.steps:
            value, held = loss.item(), validate(model, held_out)
            save_checkpoint(checkpoint, model, optimizer, sampler)
            seconds = (time.perf_counter() - begun) / (sampler.batch - first)
            print(
                f"step {sampler.batch}/{options.steps}  loss {value:.3f}  held out {held:.3f}"
                f"  {BATCH * LENGTH / seconds:,.0f} tokens/s"
                f"  {seconds * (options.steps - sampler.batch):.0f} s left",
                flush=True,
            )
        if interrupts and sampler.batch < options.steps:
            save_checkpoint(checkpoint, model, optimizer, sampler)
            print(f"stopped after step {sampler.batch}; the same command continues")
            return
    models.save(model, options.folder)
    prompt = paddle.to_tensor([tokenizer.encode("\n")])
    ids = model.generate(prompt, max_new_tokens=100, temperature=0.8, top_k=40)
    print(tokenizer.decode(ids[0].numpy()))


if __name__ == "__main__":
    main()
