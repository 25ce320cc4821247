"""Scores against values worked out by hand, and a report that says what its figures say."""

import json
import math
from dataclasses import replace

import pytest
import torch

from xinglin.dataset.encode import Encoding
from xinglin.evaluation.controls import lookup
from xinglin.evaluation.metrics import answer_nats
from xinglin.evaluation.report import Report, findings, to_html, to_markdown, write_report
from xinglin.evaluation.statistics import mean_score, paired_difference, ratio_score
from xinglin.knowledge.check import check_answer
from xinglin.knowledge.link import Linker
from xinglin.knowledge.vocabulary import Term
from xinglin.prompts import load_template
from xinglin.records import Example, Score, Turn

LINKER = Linker(
    {one: Term(one, "symptom") for one in ("恶心", "呕吐", "头痛", "肾炎", "偏头痛")}, ["肾盂肾炎", "血管性头痛"]
)
EXAMPLE = Example(
    "1",
    (
        Turn("user", "偏头痛有哪些症状？", "偏头痛的常见症状：恶心、呕吐\n感冒的常见症状：头痛"),
        Turn("assistant", "偏头痛的常见症状有恶心、呕吐。"),
    ),
    "symptoms",
    (("偏头痛", "常见症状", "恶心"), ("偏头痛", "常见症状", "呕吐")),
)


@pytest.mark.parametrize(
    ("answer", "recall", "precision"),
    [
        ("偏头痛会恶心、呕吐。", 1.0, 1.0),
        ("偏头痛会恶心。", 0.5, 1.0),
        ("恶心，头痛", 0.5, 0.5),
        ("血管性头痛、肾盂肾炎", 0.0, 0.0),  # longer words are not the terms inside them
        ("", 0.0, 0.0),
        ("偏头痛", 0.0, 0.0),  # what the question names is no finding
    ],
)
def test_fact_check(answer, recall, precision):
    check = check_answer(answer, EXAMPLE.facts, LINKER, EXAMPLE.question.content)
    assert (check.recall, check.precision) == (recall, precision)


def test_statistics_against_hand_worked_values():
    score = ratio_score("m", [1.0, 3.0], [2.0, 2.0])
    assert (score.value, score.n) == (1.0, 2)
    assert 0.5 <= score.low < score.high <= 1.5
    assert mean_score("m", [1.0] * 60).low == pytest.approx(1 - 3 / 60)
    assert mean_score("m", [0.0] * 60).high == pytest.approx(3 / 60)
    spread = mean_score("m", [0.0, 1.0] * 50)
    half = 1.96 * 0.5 / math.sqrt(100)  # the normal interval of a share of a half
    assert spread.low == pytest.approx(0.5 - half, abs=0.03)
    assert spread.high == pytest.approx(0.5 + half, abs=0.03)
    assert paired_difference("m", [1.0, 2.0], [0.5, 1.5], [1.0, 3.0]).value == 0.25


def test_answer_nats_equal_the_models_own_loss(tiny_base, tiny_tokenizer):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)
    encoding = Encoding(tiny_tokenizer, load_template("med_template"))
    other = Example("2", (Turn("user", "问"), Turn("assistant", "恶心恶心恶心")))
    for example, nats in zip((EXAMPLE, other), answer_nats(model, [EXAMPLE, other], encoding), strict=True):
        (row,) = encoding.rows(example)
        out = model(input_ids=torch.tensor([row.input_ids]), labels=torch.tensor([row.labels]))
        assert nats == pytest.approx(out.loss.item() * row.targets, rel=1e-5)


def test_lookup_copies_the_right_line_without_a_model():
    assert lookup(EXAMPLE) == "偏头痛的常见症状：恶心、呕吐。以上为资料所载，请咨询医生。"
    asked = Example("2", (Turn("user", "偏头痛归医院哪个科管？", EXAMPLE.question.input),))
    assert lookup(asked) == "资料中没有相关记载，请咨询医生。"


def report(tmp_path, difference: Score) -> Report:
    scores = [
        difference,
        Score("recall_difference", 0.5, 60, 0.4, 0.6, "tuned_facts-base_facts_3"),
        Score("fact_recall", 0.02, 60, 0.0, 0.05, "tuned"),
        Score("fact_recall", 0.97, 60, 0.9, 1.0, "tuned_facts"),
        Score("fact_recall", 1.0, 20, 0.8, 1.0, "tuned_facts/symptoms"),
        Score("fact_recall", 0.99, 60, 0.9, 1.0, "lookup"),
    ]
    systems = {"base": "基座", "tuned": "微调后", "tuned_facts": "微调后 + 资料", "lookup": "查表"}
    answers = {system: {"1": f"<b>{system}|答</b>"} for system in systems}
    return Report(systems, scores, [EXAMPLE], answers, "base", tmp_path)


def nll(value, low, high):
    return Score("nll_difference", value, 60, low, high, "tuned-base")


@pytest.mark.parametrize(
    ("score", "said", "unsaid"),
    [
        (nll(-3.0, -4.0, -2.0), "更低（更好），学到了", "更差"),
        (nll(3.0, 2.0, 4.0), "更高（更差）", "学到了"),
        (nll(0.1, -1.0, 1.0), "不显著", "学到了"),
    ],
)
def test_what_is_said_of_the_loss_follows_it(tmp_path, score, said, unsaid):
    line = findings(report(tmp_path, score))[0]
    assert said in line
    assert unsaid not in line


def test_what_is_said_of_recall_follows_it(tmp_path):
    weak = report(tmp_path, nll(-3.0, -4.0, -2.0))
    assert any("内容不可信" in line for line in findings(weak))
    assert any("不低于微调后" in line for line in findings(weak))
    strong = replace(
        weak,
        scores=[
            Score("recall_difference", -0.5, 60, -0.6, -0.4, "tuned_facts-base_facts_3"),
            Score("fact_recall", 0.7, 60, 0.6, 0.8, "tuned"),
            Score("fact_recall", 0.2, 60, 0.1, 0.3, "tuned_facts"),
            Score("fact_recall", 0.1, 60, 0.0, 0.2, "lookup"),
        ],
    )
    said = "".join(findings(strong))
    assert "不知道没学过" not in said
    assert "微调后更低" in said
    assert "低于微调后" in said
    assert "不低于" not in said


def test_lookup_finds_the_facts_of_every_form():
    """The control must be a fair one: without a model it answers nearly every question whose facts lie before it."""
    from xinglin.dataset.build import DataBuild, build_examples
    from xinglin.dataset.clean import clean
    from xinglin.knowledge.graph import load_cmekg

    graph = load_cmekg()
    linker = Linker.from_graph(graph)
    built = build_examples(clean(graph), graph, DataBuild(num_records=300, num_eval=300), linker)
    asked = [one for one in built.examples if one.split == "unseen_disease"]
    recall = [check_answer(lookup(one), one.facts, linker, one.question.content).recall for one in asked]
    assert sum(recall) / len(recall) > 0.95


def test_the_reports_own_questions_come_with_facts():
    from xinglin.evaluation.questions import report_questions
    from xinglin.knowledge.graph import load_cmekg

    first, second = report_questions(load_cmekg())
    assert "心脏扩大" in first.question.input
    assert {"麻风", "小儿支气管哮喘"} <= {line.partition("的")[0] for line in second.question.input.splitlines()}


def test_the_report_is_whole_and_escapes_what_models_say(tmp_path):
    made = report(tmp_path, Score("nll_difference", -3.0, 60, -4.0, -2.0, "tuned-base"))
    page = to_html(made)
    assert "<b>tuned" not in page
    assert "&lt;b&gt;tuned" in page
    assert "http" not in page.replace("http-equiv", "")  # nothing is fetched from elsewhere
    row = next(line for line in to_markdown(made).splitlines() if "tuned\\|答" in line)
    assert row.replace("\\|", "").count("|") == 5
    contents = write_report(made, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "report.json").read_text("utf-8")) == contents
    assert (tmp_path / "out" / "report.html").is_file()
