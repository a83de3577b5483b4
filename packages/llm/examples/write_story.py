"""Write a story with a real, very small model: 260 thousand parameters, trained on TinyStories.

    python write_story.py FOLDER [--begin "Once upon a time"] [--temperature 0.8] [--seed 1]

FOLDER holds ``stories260K.bin`` and ``tok512.bin`` of ``karpathy/tinyllamas`` on Hugging Face, folder
``stories260K`` (data set ``weights/stories260K`` of the registry).
"""

import argparse
import sys
import time
from pathlib import Path

import paddle
from oarlock.llm import tokenizers, weights
from oarlock.native.paddle import accelerate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--begin", default="", help="first words of the story")
    parser.add_argument("--tokens", type=int, default=200, help="length at most")
    parser.add_argument("--temperature", type=float, default=0.0, help="0: most probable words")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    accelerate()
    try:
        model = weights.load_llama2c(options.folder / "stories260K.bin")
        tokenizer = tokenizers.Llama2cTokenizer.from_file(options.folder / "tok512.bin")
    except (OSError, ValueError) as error:
        print(f"write_story.py: {error}", file=sys.stderr)
        sys.exit(2)
    start = tokenizer.special_tokens["<s>"]
    prompt = [start, *tokenizer.encode(options.begin)]
    begun = time.perf_counter()
    text = model.generate(
        paddle.to_tensor([prompt]),
        max_new_tokens=options.tokens,
        temperature=options.temperature,
        stop_token=start,  # the next story
        seed=options.seed,
    )[0].tolist()
    seconds, new = time.perf_counter() - begun, len(text) - len(prompt)
    print(tokenizer.decode(text[:-1] if text[-1] == start else text))
    print(f"\n{new} tokens, {new / seconds:.0f} a second")


if __name__ == "__main__":
    main()
