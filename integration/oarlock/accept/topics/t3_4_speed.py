"""Criterion 3.4: text generation against Paddle's own scheme and the libraries that people use on CPUs."""

from collections.abc import Iterator, Mapping
from typing import Any

from oarlock.accept.experiment import Evidence, Run, experiment

#: Shapes, the cases (texts at once, tokens of each prompt, new tokens) and rounds of each; `frameworks` compute in
#: float32 and take part where at most so many texts are continued at once.
SIZES: Mapping[str, dict[str, Any]] = {
    "quick": {
        "shapes": {"llama-tiny": {"cases": [(1, 16, 6), (4, 16, 6)], "frameworks": 0}},
        "rounds": 2,
        "threads": 1,
        "settle_s": 0.0,
        "steps": 4,
    },
    "full": {
        "shapes": {
            "llama-15m": {
                "cases": [(1, 16, 48), (32, 16, 32), (1, 512, 16)],
                "frameworks": 32,
            },
            "llama-135m": {
                "cases": [(1, 16, 32), (8, 16, 24), (32, 16, 16), (1, 512, 16), (8, 512, 8)],
                "frameworks": 8,
            },
            "llama-1100m": {
                "cases": [(1, 16, 12), (8, 16, 8), (1, 512, 4)],
                "frameworks": 1,
            },
            "gpt-124m": {
                "cases": [(1, 16, 32), (8, 16, 24), (1, 512, 16)],
                "frameworks": 8,
            },
        },
        "rounds": 6,
        "threads": 2,
        "settle_s": 0.25,
        "steps": 40,
    },
}
OVER_PADDLE = 1.2  #: the criterion
OVER_PADDLE_GOAL = 3.0  #: our own, with weights in 8 bits
OVER_LLAMA_CPP = 1.2  #: our own, at equal bits
OF_BANDWIDTH = 0.7  #: our own, where weights are more than caches hold
CACHED_BYTES = 50e6  #: of weights that stay in caches, where the memory's bandwidth says nothing
#: Our formats, and the arms that they are compared with.
COMPARED = (
    ("bf16", "llama.cpp fp16", OVER_LLAMA_CPP),
    ("int8", "llama.cpp int8", OVER_LLAMA_CPP),
    ("int4", "llama.cpp int4", OVER_LLAMA_CPP),
    ("int4", "onnxruntime int4", None),
    ("fp32", "transformers fp32", None),
    ("fp32", "paddlenlp fp32", OVER_PADDLE),
    ("int8", "paddlenlp fp32", OVER_PADDLE_GOAL),
)
#: Left out for a billion weights: more than memory holds beside the others.
HEAVY = ("fp32", "bf16", "fp16")


@experiment(
    "3.4",
    name="speed",
    tiers=("quick", "full"),
    title="Text generation: PaddleNLP, llama.cpp, ONNX Runtime, transformers and our engine",
    minutes=45,
    peers=("llama_cpp", "transformers", "paddlenlp"),
)
def speed(run: Run) -> Iterator[Evidence]:
    """Greedy generation by every library in turns: first tokens, tokens behind them, share of the bandwidth."""
    from oarlock.accept.inference import arms as arm_list
    from oarlock.accept.inference import measured

    sizes = SIZES[run.tier]
    todo = [(name, case) for name, one in sizes["shapes"].items() for case in one["cases"]]
    done = 0
    for name, one in sizes["shapes"].items():
        arms = _arms(run, name, one["frameworks"])
        with arm_list.opened(arms, name, threads=sizes["threads"], seed=run.seed) as opened:
            for texts, prompt, new in one["cases"]:
                case = measured.Case(texts=texts, prompt=prompt, new=new)
                run.progress(done, len(todo), f"{name}, {texts} texts, prompts of {prompt}")
                found = measured.rounds(
                    opened,
                    case,
                    count=sizes["rounds"],
                    vocabulary=512,
                    settle_s=sizes["settle_s"],
                )
                yield from _compared(run, name, opened, found)
                done += 1
            for arm in opened.values():
                if arm.arm.library == "ours":
                    yield _alone(run, name, arm)
                    yield _bandwidth(run, name, arm)


def _arms(run: Run, name: str, frameworks: int) -> list[Any]:
    """The arms of a shape; those whose peers are missing are left out, and the log says so."""
    from oarlock.accept import peers
    from oarlock.accept.inference.arms import Arm

    files = name.startswith("llama")
    found = [Arm(library="ours", bits=bits) for bits in ("fp32", "bf16", "int8", "int4")]
    if files:
        found += [Arm(library="onnxruntime", bits="int4", most_texts=8)]
        found += [Arm(library="llama.cpp", bits=bits) for bits in ("fp16", "int8", "int4")]
    for library in ("paddlenlp", "transformers"):
        found.append(Arm(library=library, bits="fp32", most_texts=frameworks))
    if name == "llama-1100m":
        found = [one for one in found if one.bits not in HEAVY or one.library == "paddlenlp"]
    missing = set()
    for library, peer in (
        ("llama.cpp", "llama_cpp"),
        ("paddlenlp", "paddlenlp"),
        ("transformers", "transformers"),
    ):
        try:
            peers.python(peer)
        except peers.PeerMissing as reason:
            missing.add(library)
            if run.tier == "full":
                run.log(f"{library} is left out: {reason}")
        if run.tier == "quick":
            missing.add(library)
    found = [one for one in found if one.library not in missing]
    return [one for one in found if one.bits == "int4"] if run.tier == "quick" else found


def _compared(
    run: Run, name: str, opened: Mapping[str, Any], found: Mapping[str, Any]
) -> Iterator[Evidence]:
    from oarlock.accept.inference import measured

    sizes = SIZES[run.tier]
    for bits, base_name, target in COMPARED:
        ours, base = found.get(f"ours {bits}"), found.get(base_name)
        if ours is None or base is None:
            continue
        case = ours.case
        about = opened[base_name].about["library"]
        notes = (
            f"{about}, {sizes['threads']} threads, {case.texts} texts, prompts of {case.prompt} random"
            f" tokens, {case.new} new ones each, greedy. {base_name}: {base.latency()}; ours {bits}:"
            f" {ours.latency()}. Keys and values: float32 in ONNX Runtime and the frameworks, float16 in"
            " llama.cpp, bfloat16 in ours."
        )
        peer = base_name.replace(" ", "-").replace(".", "-")
        parts = [("decode", base.step_s, ours.step_s, base.decoded, ours.decoded)]
        if case.prompt >= 512:
            parts.append(("prompt", base.first_s, ours.first_s, base.read, ours.read))
        for part, base_s, ours_s, base_speed, our_speed in parts:
            ratio = measured.ratio(base_s, ours_s, run.seed)
            what = "tokens behind the first" if part == "decode" else "prompts, to the first tokens"
            yield Evidence(
                name=f"{name}-{case.name}-{part}-{bits}-{peer}",
                metric=f"{name}, {case.texts} × {case.prompt}: {what}, ours in {bits}",
                unit="tokens/s",
                direction="higher",
                baseline=base_speed,
                baseline_name=base_name,
                ours=our_speed,
                ratio=ratio.value,
                ci=ratio.ci,
                n=ratio.n,
                seeds=[run.seed],
                target=target,
                judged=run.tier == "full",
                notes=notes,
            )


def _alone(run: Run, name: str, arm: Any) -> Evidence:
    """Texts must not depend on the texts beside them."""
    import numpy as np

    texts, new = 8, 12
    prompts = np.random.default_rng(run.seed).integers(3, 512, (texts, 16)).tolist()
    arm.worker.call("prepare", texts=texts, positions=16 + new)
    together = arm.worker.call("generate", prompts=prompts, new=new)["tokens"]
    alone = [arm.worker.call("generate", prompts=[one], new=new)["tokens"][0] for one in prompts]
    same = sum(a == b for a, b in zip(together, alone, strict=True))
    return Evidence(
        name=f"{name}-alone-{arm.arm.bits}",
        metric=f"{name}: texts that are the same alone and beside others, ours in {arm.arm.bits}",
        unit="texts",
        direction="higher",
        baseline=float(texts),
        baseline_name="all texts",
        ours=float(same),
        ratio=same / texts,
        target=1.0,
        n=texts,
        seeds=[run.seed],
        notes=f"Greedy, prompts of 16 random tokens, {new} new ones.",
    )


def _bandwidth(run: Run, name: str, arm: Any) -> Evidence:
    """Weights read a second while one text is written, against a sum over as much memory."""
    from statistics import median

    from oarlock.accept.inference import measured

    sizes = SIZES[run.tier]
    found = arm.worker.call("bandwidth", steps=sizes["steps"])
    ratio = measured.ratio(
        [1 / one for one in found["sum"]], [1 / one for one in found["weights"]], run.seed
    )
    share = measured.ratio(
        [1 / (OF_BANDWIDTH * one) for one in found["sum"]],
        [1 / one for one in found["weights"]],
        run.seed,
    )
    return Evidence(
        name=f"{name}-bandwidth-{arm.arm.bits}",
        metric=f"{name}: share of the memory's bandwidth, weights in {arm.arm.bits}",
        unit="GB/s",
        direction="higher",
        baseline=OF_BANDWIDTH * median(found["sum"]) / 1e9,
        baseline_name=f"{OF_BANDWIDTH:.0%} of a plain sum over as much memory",
        ours=median(found["weights"]) / 1e9,
        ratio=share.value,
        ci=share.ci,
        n=share.n,
        seeds=[run.seed],
        target=1.0 if arm.about["read_bytes"] > CACHED_BYTES else None,
        judged=run.tier == "full",
        notes=(
            f"Share {ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}];"
            f" {arm.about['read_bytes'] / 1e6:.0f} MB of weights a token, {sizes['threads']} threads,"
            " steps and sums in turns, single steps as pairs. Keys and values, and all that is computed,"
            " are not counted."
        ),
    )
