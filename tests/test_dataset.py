"""Instruction data from the real graph (fetched once from the package index into the cache)."""

import json
import re
from collections import Counter

import pytest

from xinglin.dataset.build import DataBuild, build_examples, quotas, records_path, split_diseases, write_data
from xinglin.dataset.clean import clean, reject
from xinglin.dataset.forms import ABSTAIN, COMPARISON_EVALUATION, COMPARISON_TRAIN, FORMS, TOPIC_WORDS
from xinglin.dataset.split import groups, held_out, similar_pairs
from xinglin.errors import UserError
from xinglin.knowledge.graph import Subject, load_cmekg
from xinglin.knowledge.policy import excluded
from xinglin.records import read_examples, read_instructions, to_alpaca


@pytest.fixture(scope="session")
def graph():
    return load_cmekg()


@pytest.fixture(scope="session")
def cleaned(graph):
    return clean(graph.of_type("disease"))


@pytest.fixture(scope="session")
def built(tmp_path_factory, graph):
    path = tmp_path_factory.mktemp("data") / "llama_data.json"
    write_data(DataBuild(output_path=str(path)))
    return path, read_examples(records_path(path))


def of(examples, split):
    return [one for one in examples if one.split == split]


def abouts(example):
    """The diseases that the lines of `input` are about."""
    lines = [line for line in example.question.input.splitlines() if "的共同症状：" not in line]
    return {line.rpartition("：")[0].rpartition("的")[0] for line in lines}


def test_the_real_graph_has_its_known_size(graph):
    assert len(graph) == 27_403
    assert sum(row[2] for row in graph.predicates()) == 967_409
    assert graph.types()["disease"] > 6_000


def test_size_forms_and_shares(built):
    _, examples = built
    train = of(examples, "train")
    assert len(train) == 8000
    assert set(Counter(one.form for one in train)) == {*FORMS, "comparison"}
    shares = Counter(one.knowledge for one in train)
    assert shares == {"facts": 4800, "other_facts": 1200, "none": 2000}
    assert all(bool(one.question.input) == (one.knowledge != "none") for one in train)


def test_files_agree_and_hold_exactly_the_three_keys(built):
    path, examples = built
    rows = json.loads(path.read_text("utf-8"))
    assert all(list(row) == ["instruction", "input", "output"] for row in rows)
    train = [one for one in examples if one.split == "train"]
    assert rows == [to_alpaca(one) for one in train]
    assert len(read_instructions(path)) == 8000
    assert json.loads(path.with_suffix(".summary.json").read_text("utf-8"))["records"]["train"] == 8000


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(built, tmp_path):
    path, _ = built
    for seed, same in ((42, True), (43, False)):
        again = tmp_path / str(seed) / path.name
        write_data(DataBuild(output_path=str(again), seed=seed))
        assert (again.read_bytes() == path.read_bytes()) is same
        assert (records_path(again).read_bytes() == records_path(path).read_bytes()) is same


def test_every_cited_fact_is_in_the_raw_graph_and_in_the_answer(built, graph):
    from xinglin.knowledge.link import normalize

    raw = {one.name: one.facts for one in graph.of_type("disease")}
    for example in built[1]:
        for subject, predicate, object_ in example.facts:
            stated = {part for text in raw[subject][predicate] for part in re.split("[;；、]", normalize(text))}
            assert object_ in stated | {normalize(text) for text in raw[subject][predicate]}
            assert object_ in example.answer


def test_grounded_answers_stand_on_their_input(built):
    for example in built[1]:
        lines = example.question.input.splitlines()
        if example.knowledge == "facts":
            for subject, _, object_ in example.facts:
                heads = (f"{subject}的{TOPIC_WORDS.get(example.form)}：", f"{subject}的其他症状：")
                shared = [line for line in lines if line.startswith("两者的共同症状：")]
                stating = [line for line in lines if line.startswith(heads)] + shared
                assert any(object_ in re.split("[：、]|等$", line) for line in stating), example
        elif example.knowledge == "other_facts":
            assert example.facts == ()
            assert re.match(ABSTAIN.format(d=".+", topic=f"({'|'.join(TOPIC_WORDS.values())})"), example.answer)


def test_what_a_comparison_calls_shared_is_shared(built, cleaned):
    symptoms = {disease.name: set(disease.objects.get("symptoms", ())) for disease in cleaned.diseases}
    compared = [one for one in built[1] if one.form == "comparison" and one.facts]
    assert len(compared) > 500
    for example in compared:
        shared, only_a, only_b = re.fullmatch(
            "两者的共同症状有(.+?)；.+?的其他症状有(.+?)；.+的其他症状有(.+?)。请就医鉴别。.*", example.answer
        ).groups()
        one, other = dict.fromkeys(subject for subject, _, _ in example.facts)
        assert set(shared.split("、")) <= symptoms[one] & symptoms[other]
        assert set(only_a.split("、")) <= symptoms[one] - symptoms[other]
        assert set(only_b.split("、")) <= symptoms[other] - symptoms[one]


def test_unanswerable_input_does_not_answer(built):
    for example in built[1]:
        if example.knowledge == "other_facts":
            asked, topic = re.match(
                ABSTAIN.format(d="(.+)", topic=f"({'|'.join(TOPIC_WORDS.values())})"), example.answer
            ).groups()
            heads = (f"{asked}的{topic}：", f"{asked}的其他{topic}：")
            assert not any(line.startswith(heads) for line in example.question.input.splitlines())


def test_no_held_out_disease_reaches_training(built, cleaned):
    held = held_out(cleaned.diseases)
    assert 0.05 < len(held) / len(cleaned.diseases) < 0.15
    family = groups(cleaned.diseases)
    assert not {family[name] for name in held} & {family[d.name] for d in cleaned.diseases if d.name not in held}
    for example in built[1]:
        subjects = abouts(example)
        subjects |= {subject for subject, _, _ in example.facts}
        if example.split == "unseen_disease":
            assert subjects <= held
        else:
            assert not subjects & held
            assert not {object_ for _, _, object_ in example.facts} & held


def test_evaluation_uses_phrasings_that_training_does_not(built):
    for form in FORMS.values():
        assert not set(form.train) & set(form.evaluation)
        assert len(form.train) >= 8
    assert not set(COMPARISON_TRAIN) & set(COMPARISON_EVALUATION)
    train, rest = of(built[1], "train"), [one for one in built[1] if one.split != "train"]
    patterns = [p for form in FORMS.values() for p in form.evaluation] + list(COMPARISON_EVALUATION)
    shapes = [re.compile(re.sub(r"\\{[dab]\\}", ".+", re.escape(p))) for p in patterns]
    assert not any(shape.fullmatch(one.question.content) for one in train for shape in shapes)
    assert all(any(shape.fullmatch(one.question.content) for shape in shapes) for one in rest)


def test_nothing_that_policy_excludes_is_in_the_data(built):
    for example in built[1]:
        assert not any(excluded(object_) for fact in example.facts for object_ in fact)


def test_unseen_questions_carry_a_strangers_facts(built):
    for example in of(built[1], "unseen_disease"):
        asked = {subject for subject, _, _ in example.facts}
        assert abouts(example) - asked


@pytest.mark.parametrize(
    ("topic", "text", "rule"),
    [
        ("symptoms", "甚至昏迷", "fragment"),
        ("symptoms", "恶心、呕吐", "punctuation"),
        ("symptoms", "形成慢性炎症", "fragment"),
        ("symptoms", "初发性或维持性睡眠障碍[失眠症]", "length"),
        ("symptoms", "痛", "length"),
        ("symptoms", "溃疡病", "generic word"),
        ("symptoms", "有自杀倾向", "policy"),
        ("examinations", "实验室检查", "generic word"),
        ("department", "门诊", "not a department"),
        ("symptoms", "恶心", None),
        ("examinations", "MRI", None),
    ],
)
def test_cleaning_rules(topic, text, rule):
    assert reject(topic, text) == rule


def test_substrings_of_siblings_go_and_order_follows_support():
    subjects = [
        Subject(f"病{n}", "disease", {"常见症状": ["呕吐", "头痛", "偏头痛"] + (["恶心"] if n < 3 else [])})
        for n in "1234567"
        for n in [int(n)]
    ]
    one = clean(subjects).diseases[0]
    assert one.objects["symptoms"] == ("偏头痛", "呕吐")  # 头痛 inside 偏头痛; 恶心 in two diseases only


def test_similar_pairs_equal_a_plain_search():
    import random

    rng = random.Random(0)
    sets = {f"d{n}": tuple(rng.sample("abcdefghij", rng.randint(1, 8))) for n in range(120)}

    def jaccard(one, other):
        return len(set(one) & set(other)) / len(set(one) | set(other))

    names = list(sets)
    plain = {(a, b) for i, a in enumerate(names) for b in names[:i] if jaccard(sets[a], sets[b]) >= 0.6}
    assert set(similar_pairs(sets)) == plain


def test_bad_settings(cleaned):
    with pytest.raises(UserError, match="must lie between 0 and 1"):
        build_examples(cleaned, DataBuild(grounded=0.9, unanswerable=0.2))
    with pytest.raises(UserError, match="the graph gives only"):
        build_examples(cleaned, DataBuild(num_records=500_000))
    assert sum(quotas(8001).values()) == 8001


def test_training_facts_name_no_held_out_disease(cleaned):
    train, held = split_diseases(cleaned)
    names = {disease.name for disease in held}
    assert not any(one in names for disease in train for objects in disease.objects.values() for one in objects)
