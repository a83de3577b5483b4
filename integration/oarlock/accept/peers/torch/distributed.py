"""A rank that trains with DistributedDataParallel: `python distributed.py ORDER RANK`.

Runs in the peer's own environment, which has PyTorch and NumPy and nothing of ours; the twin of `fleet/rank.py`.
"""

import json
import os
import sys
import time
from datetime import timedelta
from pathlib import Path

import lm_step
import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook
from torch.nn.parallel import DistributedDataParallel

_HELD_OUT = 0.1


class LossOf(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, tokens, targets):
        return self.model.loss(tokens, targets)


def batch(text, order, rank, part, number):
    cut = int(len(text) * (1 - _HELD_OUT))
    text = text[:cut] if part == "training" else text[cut:]
    task = order["task"]
    key = [order["seed"], rank, number] if part == "training" else [0, number]
    starts = np.random.default_rng(key).integers(0, len(text) - task["context"] - 1, task["batch"])
    rows = torch.from_numpy(
        np.stack([text[start : start + task["context"] + 1] for start in starts])
    )
    return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()


def learning_rate(task, step):
    warm = max(1, task["steps"] // 10)
    if step < warm:
        return task["rate"] * (step + 1) / warm
    return task["rate"] * (1 - 0.9 * (step - warm) / max(1, task["steps"] - warm))


def main(order, rank):
    task, way = order["task"], order["arm"]["way"]
    lm_step.build(shape=task["shape"], batch=task["batch"], context=task["context"], threads=1,
                  learning_rate=task["rate"], weights=order["weights"])  # fmt: skip
    model = LossOf(lm_step._state["model"])
    dist.init_process_group(
        "gloo", rank=rank, world_size=task["ranks"], timeout=timedelta(minutes=10)
    )
    # With its default buckets, two callbacks of the PowerSGD hook block each other on gloo.
    hook, _, columns = way.partition("-")
    options = {"bucket_cap_mb": 200} if hook == "powersgd" else {}
    layer = DistributedDataParallel(model, **options)
    if hook == "fp16":
        layer.register_comm_hook(None, default_hooks.fp16_compress_hook)
    elif hook == "powersgd":
        state = powerSGD_hook.PowerSGDState(
            None,
            matrix_approximation_rank=int(columns or 4),
            start_powerSGD_iter=max(2, order["arm"]["options"].get("warm_up", 0)),
            warm_start=True,
            use_error_feedback=True,
        )
        layer.register_comm_hook(state, powerSGD_hook.powerSGD_hook)
    optimizer = torch.optim.AdamW(
        layer.parameters(),
        lr=task["rate"],
        betas=(0.9, task["beta2"]),
        weight_decay=0.1,
        fused=True,
    )
    text = np.load(order["text"]).astype(np.int64)

    def held_out():
        with torch.no_grad():
            held = [
                model(*batch(text, order, rank, "validation", number)).item()
                for number in range(rank * task["validation"], (rank + 1) * task["validation"])
            ]
        return float(np.mean(held))

    seconds, losses, curve = [], [], []
    for step in range(task["steps"]):
        tokens, targets = batch(text, order, rank, "training", step)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(task, step)
        begin = time.perf_counter()
        loss = layer(tokens, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(layer.parameters(), task["clip"])
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        seconds.append(time.perf_counter() - begin)
        if task["every"] and (step + 1) % task["every"] == 0:
            curve.append([step + 1, sum(seconds), held_out()])
    found = {"seconds": seconds, "losses": losses, "traffic": [], "curve": curve, "report": ""}
    found["parameters"] = sum(one.numel() for one in model.parameters())
    dist.barrier()
    Path(order["out"], f"{rank}.json").write_text(json.dumps(found))
    os._exit(0)  # gloo's threads of hooks may wait for each other at the end


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()), int(sys.argv[2]))
