"""A Hugging Face folder evaluated by lm-eval, served to an experiment.

Runs in the peer's own environment, which has lm-eval, transformers and PyTorch and nothing of ours.
"""

import logging
import time

import lm_eval
import torch
import transformers
from lm_eval import evaluator
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM

_state: dict = {}


def load(*, folder, threads, lengths):
    """Open a model in float32.

    lm-eval puts the begin token before a text where it is told to, and then in `loglikelihood_rolling` a
    second time, whose probability it counts; so rolling texts are run without.

    Args:
        threads: of all operators.
        lengths: positions that lm-eval may use, by kind of output.
    """
    logging.disable(logging.WARNING)
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    _state["models"] = {
        output: HFLM(
            pretrained=model.eval(),
            tokenizer=tokenizer,
            device="cpu",
            dtype="float32",
            max_length=length,
            add_bos_token=output != "loglikelihood_rolling",
        )
        for output, length in lengths.items()
    }
    return {
        "lm_eval": lm_eval.__version__,
        "transformers": transformers.__version__,
        "torch": torch.__version__,
    }


def prepare(*, tasks):
    """Make tasks and load their rows."""
    _state["tasks"] = [(one, _task(one)) for one in tasks]


def evaluate(*, batch_size, tasks=None):
    """Evaluate from loaded rows to scores; wall and CPU seconds.

    Args:
        batch_size: of lm-eval.
        tasks: names; None for all that are prepared.
    """
    wall, cpu = time.perf_counter(), time.process_time()
    found = {}
    for output, model in _state["models"].items():
        chosen = [
            (one, task)
            for one, task in _state["tasks"]
            if one["output"] == output and (tasks is None or one["name"] in tasks)
        ]
        if not chosen:
            continue
        model.batch_size_per_gpu = batch_size
        result = evaluator.evaluate(
            lm=model,
            task_dict={one["name"]: task for one, task in chosen},
            samples={one["name"]: one["samples"] for one, _ in chosen},
            log_samples=True,
            bootstrap_iters=0,
        )
        for one, _ in chosen:
            found[one["name"]] = _found(result, one["name"], output)
    _state["found"] = found
    return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}


def results():
    """Scores and items of the last evaluation, by task."""
    return _state["found"]


def _task(one):
    config = dict(one["config"])
    if one["choices"]:
        config["doc_to_choice"] = lambda doc: list(doc[one["choices"]])
    return ConfigurableTask(config=config)


def _found(result, name, output):
    samples = sorted(result["samples"][name], key=lambda sample: sample["doc_id"])
    scores = result["results"][name]
    if output == "multiple_choice":
        items = [[r[0] for r in sample["filtered_resps"]] for sample in samples]
    else:
        items = [sample["filtered_resps"][0] for sample in samples]
    return {
        "scores": {k: float(v) for k, v in scores.items() if isinstance(v, (int, float))},
        "items": items,
    }
