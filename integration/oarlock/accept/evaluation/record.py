"""Records what lm-eval finds, for the quick tier: `python -m oarlock.accept.evaluation.record`."""

import json
import tempfile
from pathlib import Path

from oarlock.accept.evaluation import hugging_face, lm_eval_peer, lm_eval_tasks

PLACE = Path(__file__).with_name("recorded.json")
TASKS = (
    "coin_flip",
    "commonsense_qa",
    "next_sentence_medium",
    "arithmetic_sums_easy",
    "svamp",
    "shakespeare_bits",
)
ITEMS = 3


def main() -> None:
    """Evaluate in the peer's environment and write the file."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "model"
        hugging_face.write(*hugging_face.stories(), folder)
        tasks = [
            lm_eval_tasks.spell(task, ITEMS, Path(place)) for task in lm_eval_tasks.tasks_of(TASKS)
        ]
        with lm_eval_peer.start(Path(place), threads=1) as worker:
            library = worker.call(
                "load", folder=str(folder), threads=1, lengths=lm_eval_peer.LENGTHS
            )
            worker.call("prepare", tasks=tasks)
            worker.call("evaluate", batch_size=1)
            found = worker.call("results")
    record = {"library": library, "items": ITEMS, "tasks": found}
    text = json.dumps(record, ensure_ascii=False, indent=1)
    PLACE.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
