"""The redundancy report: what it foretells, how it is kept, and the bits that follow from it."""

import numpy as np
import paddle
import pytest
from oarlock.core_opt import compress
from oarlock.core_opt.compress.analysis import fisher, predict, spectra
from oarlock.core_opt.compress.analysis.report import Choice, LayerFacts, Report
from oarlock.core_opt.compress.structure import get


@pytest.fixture(scope="module")
def many(toy):
    return toy.more_batches(24, seed=3)


@pytest.fixture(scope="module")
def report(toy, many):
    question = compress.Question(heads={"*.mix": 4}, groups=(None, 8))
    return compress.analyse(toy.Model(), many, toy.loss, question=question)


def measured(toy, many, change):
    """Loss increase when a weight changes, on the batches."""
    model = toy.Model().eval()
    with paddle.no_grad():
        before = np.mean([float(toy.loss(model, batch)) for batch in many])
        change(model)
        return np.mean([float(toy.loss(model, batch)) for batch in many]) - before


def rank_correlation(x, y):
    ranks = [np.argsort(np.argsort(v)) for v in (x, y)]
    return np.corrcoef(*ranks)[0, 1]


def test_foretells_the_order_of_measured_increases(toy, many, report):
    found = []
    for choice in report.of("bits"):
        if choice.setting not in ("2", "3", "4", "5"):
            continue

        def change(model, choice=choice):
            layer = get(model, choice.target)
            weight = layer.weight.numpy().astype(np.float64)
            grid = compress.AbsMax().grid(
                weight, bits=int(choice.setting), group=len(weight), symmetric=False
            )
            layer.weight.set_value(grid.round(weight))

        found.append((choice.increase, measured(toy, many, change)))
    foretold, real = np.array(found).T
    assert rank_correlation(foretold, real) > 0.9
    small = real < 0.05
    assert np.median(foretold[small] / real[small]) == pytest.approx(1.0, abs=0.35)


def test_gradient_is_the_gradient(toy):
    model, batch = toy.Model(), toy.batches[0]
    sums = fisher.empty(model, ["head", "blocks.1.up"], [], 0)
    value = fisher.accumulate(model, batch, toy.loss, sums, None)
    loss = toy.loss(model.eval(), batch)
    assert value == pytest.approx(float(loss))
    loss.backward()
    for name, one in sums.items():
        np.testing.assert_allclose(
            one.mean().gradient, get(model, name).weight.grad.numpy(), rtol=1e-4, atol=1e-6
        )
    assert model.parameters()[0].grad is not None, "gradients of the user are not touched"


def test_fisher_is_near_the_hessian(toy):
    """Of the last layer, with targets that the model drew; what is missing is the product's."""
    model = toy.Model().eval()
    batches = toy.more_batches(40, seed=9)
    sums = fisher.empty(model, ["head"], [], 0)
    for batch in batches:
        fisher.accumulate(model, batch, toy.loss, sums, None)
    one = sums["head"].mean()
    rng = np.random.default_rng(0)
    weight = model.head.weight.numpy()
    for _ in range(3):
        change = 0.02 * rng.standard_normal(weight.shape)
        values = []
        for sign in (0, 1, -1):
            model.head.weight.set_value((weight + sign * change).astype("float32"))
            with paddle.no_grad():
                values.append(np.mean([float(toy.loss(model, batch)) for batch in batches]))
        model.head.weight.set_value(weight)
        second = (values[1] + values[2]) / 2 - values[0]
        assert predict.quadratic(change, one) == pytest.approx(second, rel=0.5)


def test_frozen_models_are_analysed_and_stay_frozen(toy):
    model = toy.Model()
    for parameter in model.parameters():
        parameter.stop_gradient = True
    compress.analyse(model, toy.batches[:1], toy.loss)
    assert all(parameter.stop_gradient for parameter in model.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_passes_of_little_memory_give_the_same(toy, report, many):
    question = compress.Question(heads={"*.mix": 4}, groups=(None, 8))
    small = compress.analyse(toy.Model(), many, toy.loss, question=question, max_memory_mb=0.02)
    assert small.to_dict() == report.to_dict()


def test_resumes_in_the_middle(toy, report, many, tmp_path):
    question = compress.Question(heads={"*.mix": 4}, groups=(None, 8))
    options = {"question": question, "state": tmp_path / "state"}

    class Stop(Exception):
        pass

    def interrupt(done, total, text):
        if "batch 13" in text:
            raise Stop

    with pytest.raises(Stop):
        compress.analyse(toy.Model(), many, toy.loss, on_progress=interrupt, **options)
    seen = []

    def loss(model, batch):
        seen.append(batch)
        return toy.loss(model, batch)

    again = compress.analyse(toy.Model(), many, loss, **options)
    assert len(seen) == 1 + 24 - 10, "one to see the width, and those after the tenth"
    assert again.to_dict() == report.to_dict()
    with pytest.raises(ValueError, match="another run"):
        compress.analyse(toy.Model(seed=4), many, toy.loss, **options)


def test_json_round_trip_and_html(report, tmp_path):
    report.write_json(tmp_path / "report.json")
    assert compress.Report.read_json(tmp_path / "report.json") == report
    report.write_html(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "blocks.2.down" in page and "NaN" not in page and page.endswith("</html>")
    with pytest.raises(ValueError, match="no redundancy report"):
        compress.Report.from_dict({"loss": 1.0})


def test_removals_are_foretold(toy, report):
    assert len(report.of("block")) == 3 and len(report.of("head")) == 12
    kinds = {(unit.layer, unit.kind) for unit in report.units}
    assert ("blocks.0.down", "neuron") in kinds and ("blocks.0.mix", "head") in kinds
    with pytest.raises(ValueError, match="the report has no head '9'"):
        report.increase("head", "blocks.0.mix", "9")


def test_a_dead_neuron_costs_nothing(toy):
    model = toy.Model()
    weight = model.blocks[0].down.weight.numpy()
    weight[5] = 0
    model.blocks[0].down.weight.set_value(weight)
    report = compress.analyse(model, toy.batches, toy.loss)
    unit = next(u for u in report.units if u.layer == "blocks.0.down")
    assert unit.increase[5] == 0.0
    compress.oneshot(
        model,
        compress.Recipe(
            modifiers=(compress.RemoveNeurons(share=1 / 32, layers=("blocks.0.down",)),)
        ),
        toy.data,
    )
    assert model.blocks[0].down.weight.shape == [31, 16]
    assert model.blocks[0].up.weight.shape == [16, 31]


# Bits -------------------------------------------------------------------------------------------


def made_up(scales, sizes, bits=(2, 3, 4, 5, 6, 7, 8), curve=lambda scale, b: scale * 4.0**-b):
    layers = [
        LayerFacts(
            name=f"l{i}", in_features=size, out_features=1, exponent_entropy=0, weight_rank=0,
            input_rank=0, gradient_rank=0, fisher_trace=0,
        )
        for i, size in enumerate(sizes)
    ]  # fmt: skip
    choices = [
        Choice(
            kind="bits", target=f"l{i}", setting=str(b), increase=curve(scale, b), linear=0.0,
            bits_per_weight=float(b),
        )
        for i, scale in enumerate(scales)
        for b in bits
    ]  # fmt: skip
    return Report(
        loss=1.0, tokens=1, layers=tuple(layers), blocks=(), units=(), choices=tuple(choices)
    )


@pytest.mark.parametrize("budget", [2.5, 3.3, 4.0, 5.7])
def test_allocation_is_the_best_of_all(budget):
    """Against every combination of a small report."""
    import itertools

    rng = np.random.default_rng(int(10 * budget))
    scales, sizes = rng.lognormal(0, 3, 5), [4, 4, 4, 4, 4]
    report = made_up(scales, sizes, bits=(2, 3, 4, 6))
    found = compress.allocate(report, budget)
    best = min(
        sum(s * 4.0**-b for s, b in zip(scales, combination))
        for combination in itertools.product((2, 3, 4, 6), repeat=5)
        if np.mean(combination) <= budget
    )
    assert found.bits_per_weight <= budget + 1e-9
    # greedy on the convex hull misses the optimum by less than one step at the end
    step = max(s * 4.0**-b for s, b in zip(scales, found.bits.values()))
    assert best <= found.increase <= best + step


def test_budget_below_the_fewest_bits_is_refused(report):
    with pytest.raises(ValueError, match="bits_per_weight must be at least"):
        compress.allocate(report, 1.0)
    with pytest.raises(ValueError, match="group 64"):
        compress.allocate(report, 4.0, group=64)


def test_allocation_beats_equal_bits_when_measured(toy, many):
    """The same size, a smaller measured increase than equal bits for all, where layers differ."""
    equal = 3 + 40 / 8  # codes, and 40 bits a group of eight

    def build():
        model = toy.Model().eval()  # a block that hardly counts beside one that counts twice
        for name, factor in (("blocks.0.down", 0.02), ("blocks.1.down", 2.0)):
            get(model, name).weight.set_value(get(model, name).weight * factor)
        return model

    question = compress.Question(groups=(8,))
    report = compress.analyse(build(), many, toy.loss, question=question)
    found = compress.allocate(report, equal, group=8)
    assert found.bits_per_weight <= equal
    increases = []
    for layer_bits in ({}, found.bits):
        model = build()
        with paddle.no_grad():
            before = np.mean([float(toy.loss(model, batch)) for batch in many])
        one = compress.RTN(bits=3, group=8, layer_bits=layer_bits)
        compress.oneshot(model, compress.Recipe(modifiers=(one,), pipeline="data_free"))
        with paddle.no_grad():
            increases.append(np.mean([float(toy.loss(model, batch)) for batch in many]) - before)
    assert increases[1] < increases[0]


def test_negative_increases_do_not_break_the_hull():
    report = made_up([1.0, 1.0], [4, 4], curve=lambda s, b: 4.0**-b - 0.02 * (b == 3))
    found = compress.allocate(report, 8.0)
    assert set(found.bits.values()) == {3}


# Spectra ----------------------------------------------------------------------------------------


def test_spectra():
    assert spectra.participation_ratio(np.array([1.0, 1, 1, 0])) == pytest.approx(3)
    assert spectra.effective_rank(np.outer([1.0, 2], [3.0, 4, 5])) == pytest.approx(1)
    assert spectra.spectral_entropy(np.eye(8)) == pytest.approx(np.log(8))
    assert spectra.exponent_entropy(np.array([1.0, 2.0, 4.0, 8.0])) == pytest.approx(2)
    assert spectra.exponent_entropy(np.array([1.1, 1.7])) == 0.0
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2000, 2))
    rotation = np.linalg.qr(rng.standard_normal((2, 2)))[0]
    heads = np.concatenate([x, x @ rotation, rng.standard_normal((2000, 2))], 1)
    found = spectra.head_similarity(heads.T @ heads, 3)
    assert found[0] > 0.45 and found[1] > 0.45 and found[2] < 0.02


@pytest.mark.parametrize(
    "options, message",
    [
        ({"blocks": "layers"}, "blocks"),
        ({"max_batches": 0}, "max_batches"),
        ({"question": lambda c: c.Question(heads={"*.attn": 2})}, "heads pattern"),
        ({"question": lambda c: c.Question(heads={"*.mix": 5})}, "5 heads"),
    ],
)
def test_wrong_arguments_are_named(toy, options, message):
    options = {k: v(compress) if callable(v) else v for k, v in options.items()}
    with pytest.raises(ValueError, match=message):
        compress.analyse(toy.Model(), toy.batches, toy.loss, **options)


def test_bad_losses_are_named(toy):
    with pytest.raises(ValueError, match="nan"):
        compress.analyse(toy.Model(), toy.batches, lambda m, b: toy.loss(m, b) * np.nan)
    with pytest.raises(ValueError, match="scalar"):
        compress.analyse(toy.Model(), toy.batches, lambda m, b: m(b[0]))
    with pytest.raises(ValueError, match="no_grad"):
        compress.analyse(toy.Model(), toy.batches, paddle.no_grad()(toy.loss))
    with pytest.raises(ValueError, match="empty"):
        compress.analyse(toy.Model(), [], toy.loss)
