"""Prepared models: addressed by recipe, resumable to the bit, refused when changed."""

import json
import math
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from oarlock.accept import data, prepare
from oarlock.accept.prepare import corpus, place, prepare_recipes
from oarlock.accept.prepare import train as training
from oarlock.accept.prepare.recipes import RECIPES, Recipe

TINY = Recipe(
    name="tiny",
    summary="for tests",
    family="llama",
    config={"hidden_size": 32, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1},
    data="llm/tinyshakespeare",
    steps=9,
    batch=4,
    context=16,
    learning_rate=1e-2,
    warmup=3,
    validate_every=4,
)
TINY_BPE = replace(TINY, name="tiny-bpe", tokenizer="bpe", vocab_size=300, steps=4)


def use_generated_text(patch: pytest.MonkeyPatch) -> None:
    """A corpus that needs no data set: sums, written out."""
    words = "zero one two three four five six seven eight nine".split()
    texts = [f"{words[a]} and {words[b]} is {a + b}。" for a in range(10) for b in range(10)]
    patch.setattr(data, "documents", lambda name, part=None: texts)


@pytest.fixture(autouse=True)
def generated_text(monkeypatch: pytest.MonkeyPatch):
    use_generated_text(monkeypatch)


def make(recipe: Recipe, root: Path, **options) -> Path:
    [status] = prepare_recipes(
        [recipe], root=root, **({"progress": False, "fresh": False} | options)
    )
    assert status.state == "ready" and status.step == recipe.steps
    return status.folder


def weights(folder: Path) -> dict[str, bytes]:
    return {name: w.tobytes() for name, w in load_file(folder / "model.safetensors").items()}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        use_generated_text(patch)
        return make(TINY, tmp_path_factory.mktemp("models"))


def test_finished_model_has_weights_and_card(uninterrupted: Path):
    card = json.loads((uninterrupted / "card.json").read_text(encoding="utf-8"))
    assert sorted(p.name for p in uninterrupted.iterdir()) == [
        ".lock",
        "card.json",
        "config.json",
        "model.safetensors",
    ]
    assert card["recipe"] == TINY.as_dict()
    assert card["key"] == place.key(TINY)
    assert card["tokens"] == 9 * 4 * 16
    assert [step for step, _, _ in card["losses"]] == [4, 8, 9]
    assert card["losses"][-1][2] < card["losses"][0][2] < math.log(256)  # it learned something
    assert card["validation_loss"] == card["losses"][-1][2]
    assert set(card["versions"]) == set(place.CODE)
    assert card["parameters"] == sum(
        w.size for w in load_file(uninterrupted / "model.safetensors").values()
    )


def test_ctrl_c_loses_nothing_and_changes_nothing(
    uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Ctrl-C after steps 2 and 5; the third call finishes with the very same bits."""
    step = training.Step

    def interrupting(**values):
        if values["step"] in (2, 5):
            os.kill(os.getpid(), signal.SIGINT)
        return step(**values)

    monkeypatch.setattr(training, "Step", interrupting)
    handler = signal.getsignal(signal.SIGINT)
    for stop in (2, 5):
        with pytest.raises(KeyboardInterrupt, match=f"after step {stop} of 9; the next call goes"):
            make(TINY, tmp_path)
        assert signal.getsignal(signal.SIGINT) is handler
        status = place.status(TINY, tmp_path)
        assert (status.state, status.step) == ("begun", stop)
    folder = make(TINY, tmp_path)
    assert weights(folder) == weights(uninterrupted)
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    whole = json.loads((uninterrupted / "card.json").read_text(encoding="utf-8"))
    assert card["losses"] == whole["losses"]
    assert (card["sessions"], whole["sessions"]) == (3, 1)


def test_killed_between_checkpoints_goes_on_from_the_last(
    uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    step = training.Step

    def dying(**values):
        if values["step"] == 6:
            raise MemoryError("killed")
        return step(**values)

    monkeypatch.setattr(training, "SAVE_EVERY_S", 0.0)  # after every step
    monkeypatch.setattr(training, "Step", dying)
    with pytest.raises(MemoryError):
        make(TINY, tmp_path)
    assert place.status(TINY, tmp_path).step == 5
    monkeypatch.setattr(training, "Step", step)
    assert weights(make(TINY, tmp_path)) == weights(uninterrupted)


def test_ready_models_are_not_trained_again_unless_fresh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = make(TINY, tmp_path)
    before = weights(folder)
    original = training.train
    monkeypatch.setattr(training, "train", lambda *a: pytest.fail("trained again"))
    make(TINY, tmp_path)
    monkeypatch.setattr(training, "train", original)
    (folder / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(prepare.ModelCorrupt, match="--fresh"):
        make(TINY, tmp_path)
    assert weights(make(TINY, tmp_path, fresh=True)) == before


def test_bpe_model_brings_its_tokenizer(tmp_path: Path):
    folder = make(TINY_BPE, tmp_path)
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    assert set(card["files"]) == {"config.json", "model.safetensors", "tokenizer.json"}
    assert card["vocab_size"] <= 300
    assert card["characters_per_token"] > 1


def test_progress_is_shown_on_stderr(tmp_path: Path, capsys: pytest.CaptureFixture):
    make(replace(TINY, steps=2, warmup=1), tmp_path, progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "tiny" in shown.err and "2/2" in shown.err and "tokens/s" in shown.err


def test_nan_loss_stops_naming_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    build = training.build

    def poisoned(recipe, vocab_size):
        model = build(recipe, vocab_size)
        loss, calls = model.loss, []
        model.loss = lambda *a: loss(*a) * (
            float("nan") if calls.append(1) or len(calls) > 2 else 1
        )
        return model

    monkeypatch.setattr(training, "build", poisoned)
    with pytest.raises(training.Diverged, match="tiny: loss nan at step 2"):
        make(TINY, tmp_path)
    assert place.status(TINY, tmp_path).state == "absent"


def test_one_process_at_a_time(tmp_path: Path):
    with place.locked(place.folder(TINY, tmp_path)):
        with pytest.raises(RuntimeError, match="another process is preparing tiny-"):
            make(TINY, tmp_path)


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"steps": 10}, {"config": {"hidden_size": 48}}, {"data": "llm/wikitext2"}],
)
def test_every_change_of_the_recipe_moves_the_model(change: dict, tmp_path: Path):
    assert place.folder(replace(TINY, **change), tmp_path) != place.folder(TINY, tmp_path)


def test_another_version_of_the_code_moves_the_model(monkeypatch: pytest.MonkeyPatch):
    before = place.key(TINY)
    assert place.key(replace(TINY)) == before
    version = place.version
    monkeypatch.setattr(place, "version", lambda n: "9.9" if n == "oarlock-llm" else version(n))
    assert place.key(TINY) != before


def test_absent_model_names_the_command(tmp_path: Path):
    with pytest.raises(
        prepare.ModelMissing, match="`oarlock-accept prepare gpt-shakespeare-bytes`"
    ):
        prepare.path("gpt-shakespeare-bytes", root=tmp_path)
    with pytest.raises(ValueError, match="did you mean llama-poems-bpe"):
        prepare.path("lama-poem-bpe", root=tmp_path)
    status = prepare.status("llama-poems-bpe", root=tmp_path)
    assert (status.state, status.step) == ("absent", 0)


def test_missing_corpus_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def missing(name, part=None):
        raise data.DataMissing("data set llm/tinyshakespeare: input.txt is not here")

    monkeypatch.setattr(data, "documents", missing)
    with pytest.raises(data.DataMissing, match="input.txt is not here"):
        make(TINY, tmp_path)


def test_loaded_model_gives_the_loss_of_its_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(prepare, "find", lambda name: TINY)
    make(TINY, tmp_path)
    model, card = prepare.load("tiny", root=tmp_path)
    text = corpus.load(TINY, tmp_path / "unused")
    batches = corpus.validation(text.held_out, TINY)
    assert training._validate(model, batches) == pytest.approx(card["validation_loss"], rel=1e-6)


def test_batches_depend_on_seed_and_step_only():
    row = np.arange(1000)

    def tokens(recipe=TINY, step=7):
        return next(corpus.batches(row, recipe, step=step))[0].numpy()

    going = corpus.batches(row, TINY, step=0)
    assert [next(going)[0].numpy() for _ in range(8)][7].tolist() == tokens().tolist()
    assert tokens().shape == (4, 16)
    assert (tokens(step=8) != tokens()).any()
    assert (tokens(replace(TINY, seed=1)) != tokens()).any()


def test_held_out_text_is_not_trained_on(tmp_path: Path):
    text = corpus.load(TINY, tmp_path / "unused")
    whole = "\n\n".join(data.documents(TINY.data)).encode()
    assert text.train.astype(np.uint8).tobytes() == whole[: len(text.train)]
    assert text.held_out.astype(np.uint8).tobytes() == whole[-len(text.held_out) :]
    assert len(text.train) + len(text.held_out) <= len(whole)


def test_short_text_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="context 5000 needs more"):
        corpus.load(replace(TINY, context=5000), tmp_path / "unused")


def test_bpe_is_trained_once_and_read_back(tmp_path: Path):
    texts, file = data.documents("any"), tmp_path / "tokenizer.json"
    made = corpus.tokenizer(TINY_BPE, file, texts)
    again = corpus.tokenizer(TINY_BPE, file, ["other text"])
    for text in [*texts[:5], "秦川雄帝宅，函谷壯皇居。", "naïve\tε\n"]:
        assert made.decode(made.encode(text)) == text
        assert again.encode(text) == made.encode(text)


def test_learning_rate_rises_and_falls():
    schedule = training.schedule(TINY)
    rates = []
    for step in range(TINY.steps + 1):
        schedule.step(step)
        rates.append(schedule.get_lr())
    assert rates[:4] == pytest.approx([1e-2 / 3, 2e-2 / 3, 1e-2, 1e-2])
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert rates[-1] == pytest.approx(1e-3)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"warmup": 9}, "warmup must lie between 0 and steps - 1, got 9"),
        ({"vocab_size": 300}, "vocab_size must be 256 for bytes"),
        ({"tokenizer": "bpe"}, "vocab_size must exceed 256"),
        ({"held_out": 1.0}, "held_out must lie between"),
    ],
)
def test_bad_recipes_are_refused(change: dict, message: str):
    with pytest.raises(ValueError, match=message):
        replace(TINY, **change)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_registered_recipes_are_as_large_as_they_say(recipe: Recipe):
    model = training.build(recipe, recipe.vocab_size)
    millions = sum(p.size for p in model.parameters()) / 1e6
    assert 1.0 <= millions <= 4.0
    assert recipe.summary.startswith(f"{millions:.1f} M parameters")
    assert data.describe(recipe.data).name == recipe.data
