"""Record what lm-eval scores on tasks of ours with stories260K, item by item.

Run in an environment that has lm-eval and this package (for model, tokenizer and the sources' rows):

    OARLOCK_DATA=... python record_eval.py

lm-eval gets the rows as JSON and the templates of our task files; it builds prompts and examples, cuts tokens, filters
answers and computes metrics by itself. The model behind it is called without padding and without cache.

Last recorded with lm-eval 0.4.13.
"""

import json
import logging
import tempfile
from pathlib import Path

import numpy as np
import paddle
from lm_eval import evaluator, utils
from lm_eval.api.model import TemplateLM
from lm_eval.api.task import ConfigurableTask

from oarlock.llm import tokenizers, weights
from oarlock.llm.eval import data, registry, sources

EXPECTED = Path(__file__).parent / "expected" / "eval.json"
LIMIT = 8
TASKS = (
    "arithmetic_sums_easy",
    "coin_flip",
    "commonsense_qa",
    "gaokao_history",
    "next_poem_line_easy",
    "next_sentence_medium",
    "tang_poems_bits",
    "wikitext2_bits",
)
START, LENGTH = 1, 512


class Plain(TemplateLM):
    """stories260K, one text at a time."""

    def __init__(self) -> None:
        super().__init__()
        folder = data.find("weights/stories260K")
        self.model = weights.load_llama2c(folder / "stories260K.bin").eval()
        self.tokenizer = tokenizers.Llama2cTokenizer.from_file(folder / "tok512.bin")

    eot_token_id = START

    def tok_encode(self, string, add_special_tokens=True, **_):
        return ([START] if add_special_tokens else []) + self.tokenizer.encode(string)

    def _logprobs(self, tokens):
        z = self.model(paddle.to_tensor([tokens]))[0].numpy().astype(np.float64)
        z -= z.max(-1, keepdims=True)
        return z - np.log(np.exp(z).sum(-1, keepdims=True))

    @paddle.no_grad()
    def _loglikelihood_tokens(self, requests, **_):
        out = []
        for _, context, continuation in requests:
            tokens = (context + continuation)[-LENGTH - 1 :]
            rows = self._logprobs(tokens[:-1])[-len(continuation) :]
            chosen = rows[np.arange(len(continuation)), continuation]
            out.append((float(chosen.sum()), bool((rows.argmax(-1) == continuation).all())))
        return out

    def loglikelihood_rolling(self, requests, **_):
        out = []
        for request in requests:
            tokens = self.tok_encode(request.args[0], add_special_tokens=False)
            windows = map(
                utils.make_disjoint_window,
                utils.get_rolling_token_windows(tokens, START, LENGTH, 1),
            )
            scored = self._loglikelihood_tokens([(None, *window) for window in windows])
            out.append(sum(logprob for logprob, _ in scored))
        return out

    @paddle.no_grad()
    def generate_until(self, requests, **_):
        out = []
        for request in requests:
            text, options = request.args
            new = options["max_gen_toks"]
            tokens = self.tok_encode(text)[-(LENGTH - new) :]
            row = self.model.generate(
                paddle.to_tensor([tokens]), max_new_tokens=new, stop_token=2, use_cache=False
            )[0].numpy()
            written = [int(t) for t in row[len(tokens) :]]
            written = written[: written.index(2)] if 2 in written else written
            before = self.tokenizer.decode(tokens)
            answer = self.tokenizer.decode([*tokens, *written])[len(before) :]
            for stop in options["until"]:
                answer = answer.split(stop)[0]
            out.append(answer)
        return out


def config(task, folder):
    """The task in lm-eval's terms."""
    rows = sources.read(task.source.reader, data.find, task.source.options)
    path = folder / f"{task.name}.jsonl"
    count = task.few_shot.count if task.few_shot else 0
    pool = []
    if count and task.few_shot.options is not None:
        pool = sources.read(task.source.reader, data.find, task.few_shot.options)
    files = {"test": str(path)}
    path.write_text("\n".join(json.dumps(row) for row in rows))
    out = {
        "task": task.name,
        "dataset_path": "json",
        "test_split": "test",
        "output_type": task.output,
        "doc_to_text": task.prompt,
        "target_delimiter": task.delimiter,
    }
    if pool:
        examples = path.with_suffix(".examples.jsonl")
        examples.write_text("\n".join(json.dumps(row) for row in pool))
        files["examples"] = str(examples)
    if count:
        out |= {
            "fewshot_split": "examples" if pool else "test",
            "num_fewshot": count,
            "fewshot_delimiter": task.few_shot.separator,
            "fewshot_config": {"sampler": "first_n"},
        }
    if task.output == "multiple_choice":
        out |= {"doc_to_choice": lambda doc: [str(c) for c in doc[task.choices]]}
        out |= {"doc_to_target": task.gold}
        out["metric_list"] = [{"metric": "acc"}, {"metric": "acc_norm"}]
    elif task.output == "loglikelihood_rolling":
        out |= {"doc_to_text": "", "doc_to_target": task.prompt}
        # lm-eval's exp overflows on Chinese, which has no spaces between words
        names = ["bits_per_byte", "byte_perplexity", "word_perplexity"][
            : 3 if task.language == "en" else 2
        ]
        out["metric_list"] = [{"metric": name} for name in names]
    else:
        out |= {
            "doc_to_target": task.target,
            "generation_kwargs": {
                "until": list(task.stop),
                "max_gen_toks": task.max_tokens,
                "do_sample": False,
            },
            "metric_list": [{"metric": "exact_match"}],
        }
    return out | {"dataset_kwargs": {"data_files": files}}


def main() -> None:
    logging.disable(logging.WARNING)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in TASKS:
            [task] = registry.select(name)
            theirs = ConfigurableTask(config=config(task, Path(folder)))
            size = len(theirs.dataset["test"])
            result = evaluator.evaluate(
                lm=Plain(),
                task_dict={name: theirs},
                samples={name: [i * size // LIMIT for i in range(LIMIT)]},
                log_samples=True,
                bootstrap_iters=0,
            )
            samples = sorted(result["samples"][name], key=lambda sample: sample["doc_id"])
            found[name] = {
                "scores": {
                    key: value
                    for key, value in result["results"][name].items()
                    if isinstance(value, float)
                },
                "items": [
                    (
                        [r[0] for r in s["filtered_resps"]]
                        if task.output == "multiple_choice"
                        else s["filtered_resps"][0]
                    )
                    for s in samples
                ],
            }
            print(name, found[name]["scores"])
    text = json.dumps(found, ensure_ascii=False, separators=(",", ":"))
    EXPECTED.write_text(text.replace('},"', '},\n"') + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
