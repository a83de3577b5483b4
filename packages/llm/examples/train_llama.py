"""Train a small LLaMA on a text file; Ctrl-C and the same command again continue exactly.

    python train_llama.py TEXT FOLDER [--steps 1000] [--vocab-size 1024] [--width 128] [--layers 4]

FOLDER gets the tokenizer, the tokens, a checkpoint while training, and the model
(``oarlock.llm.models.load``). Every 50 steps a line tells the losses, speed and time left.
"""

import argparse
import signal
import time
from pathlib import Path

import paddle
from oarlock.llm import models
from oarlock.llm.data import BatchSampler, TokenFile, eval_batches, split, write_tokens
from oarlock.llm.tokenizers import BPETokenizer
from oarlock.native.paddle import accelerate

BATCH, LENGTH, REPORT = 8, 128, 50


def tokenized(text_path: Path, folder: Path, vocab_size: int) -> tuple[TokenFile, BPETokenizer]:
    """The tokens of the text and their tokenizer, made once."""
    tokenizer_path, tokens_path = folder / "tokenizer.json", folder / "text.tokens"
    text = text_path.read_text(encoding="utf-8")
    if not tokenizer_path.exists():
        BPETokenizer.train(text.splitlines(keepends=True), vocab_size=vocab_size).save(
            tokenizer_path
        )
    tokenizer = BPETokenizer.from_file(tokenizer_path)
    if not tokens_path.exists():
        write_tokens(tokens_path, tokenizer.encode(text), tokenizer=str(tokenizer_path.name))
    return TokenFile(tokens_path), tokenizer


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
    options.folder.mkdir(parents=True, exist_ok=True)
    tokens, tokenizer = tokenized(options.text, options.folder, options.vocab_size)
    train, held_out = split(tokens, validation=0.1)
    config = models.llama.LlamaConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=options.width,
        num_layers=options.layers,
        num_heads=options.width // 32,
        max_length=2 * LENGTH,
    )
    model = models.create("llama", config)
    rate = paddle.optimizer.lr.CosineAnnealingDecay(options.learning_rate, options.steps)
    optimizer = paddle.optimizer.AdamW(
        rate,
        parameters=model.parameters(),
        beta2=0.95,
        weight_decay=0.1,
        grad_clip=paddle.nn.ClipGradByGlobalNorm(1.0),
    )
    sampler = BatchSampler(train, BATCH, LENGTH)
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
    text = model.generate(prompt, max_new_tokens=100, temperature=0.8, top_k=40)
    print(tokenizer.decode(text[0].numpy()))


if __name__ == "__main__":
    main()
