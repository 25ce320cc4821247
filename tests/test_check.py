"""The fact check: what it must say of single answers, and how often it is right on 500 built records.

A record's answer is changed in a known way (another object, another record's facts, a denial, an everyday expression),
and what the check says is compared with what was changed. What is wrong is looked up in the raw graph, as it stands.
"""

import random
import re
from collections import defaultdict
from functools import cache
from importlib import resources

import pytest
from raw_graph import cited, plain, raw_graph, real_examples, real_linker

from xinglin.knowledge.check import AnswerCheck, check_answer

MIGRAINE = (
    ("偏头痛", "临床症状及体征", "畏光"),
    ("偏头痛", "临床症状及体征", "恶心"),
    ("偏头痛", "就诊科室", "神经内科"),
)
DIARRHOEA = (("肠炎", "常见症状", "腹泻"), ("肠炎", "常见症状", "发热"))


def checked(answer, facts=MIGRAINE, question=""):
    return check_answer(answer, facts, real_linker(), question)


def as_sets(result):
    return tuple(set(part) for part in (result.supported, result.missed, result.unsupported, result.contradicted))


@pytest.mark.parametrize(
    ("answer", "facts", "supported", "missed", "unsupported", "contradicted"),
    [
        ("偏头痛可有畏光、恶心，建议看神经内科。", MIGRAINE, "畏光 恶心 神经内科", "", "", ""),
        ("偏头痛可有畏光。", MIGRAINE, "畏光", "恶心 神经内科", "", ""),
        ("偏头痛可有畏光、咳嗽。", MIGRAINE, "畏光", "恶心 神经内科", "咳嗽", ""),
        ("偏头痛可有畏光，没有恶心。", MIGRAINE, "畏光", "恶心 神经内科", "", "恶心"),
        ("偏头痛没有畏光、恶心。", MIGRAINE, "", "畏光 恶心 神经内科", "", "畏光 恶心"),
        ("偏头痛不包括恶心。", MIGRAINE, "", "畏光 恶心 神经内科", "", "恶心"),
        ("偏头痛不会有恶心。", MIGRAINE, "", "畏光 恶心 神经内科", "", "恶心"),
        ("偏头痛会不会恶心？会，也会畏光。", MIGRAINE, "恶心 畏光", "神经内科", "", ""),
        ("建议看骨科。", MIGRAINE, "", "畏光 恶心 神经内科", "", "骨科"),
        ("建议看肿瘤科。", MIGRAINE, "", "畏光 恶心 神经内科", "", "肿瘤科"),
        ("不用看骨科，看神经内科。", MIGRAINE, "神经内科", "畏光 恶心", "骨科", ""),
        ("建议看骨科。", DIARRHOEA, "", "腹泻 发热", "骨科", ""),
        ("会拉肚子，还发烧。", DIARRHOEA, "腹泻 发热", "", "", ""),
        ("会拉肚子，不发烧。", DIARRHOEA, "腹泻", "发热", "", "发热"),
        ("腹泻、腹泻、发热，腹泻。", DIARRHOEA, "腹泻 发热", "", "", ""),
        ("咳嗽、咳嗽，腹泻。", DIARRHOEA, "腹泻", "发热", "咳嗽", ""),
        ("腹　泻，发　热", DIARRHOEA, "腹泻 发热", "", "", ""),
        ("可做ＣＴ检查。", (("头痛", "检查", "CT检查"),), "CT检查", "", "", ""),
        ("", DIARRHOEA, "", "腹泻 发热", "", ""),
        ("腹泻。", (), "", "", "腹泻", ""),
        ("请就医。", (), "", "", "", ""),
    ],
)
def test_what_an_answer_says_of_its_facts(answer, facts, supported, missed, unsupported, contradicted):
    expected = tuple(set(part.split()) for part in (supported, missed, unsupported, contradicted))
    assert as_sets(checked(answer, facts)) == expected


@pytest.mark.parametrize(("one", "other"), [("肾炎", "肾盂肾炎"), ("肾上腺素", "去甲肾上腺素"), ("头痛", "偏头痛")])
def test_a_word_inside_another_is_not_that_word(one, other):
    for said, stated in ((one, other), (other, one)):
        result = checked(f"可有{said}。", (("糖尿病", "并发症", stated),))
        assert (result.supported, result.recall, len(result.missed)) == ((), 0, 1)
        assert len(result.unsupported) == 1


def test_an_alias_says_the_same():
    assert "痄腮" in raw_graph()["流行性腮腺炎"]["别称"]
    assert checked("可并发痄腮。", (("睾丸炎", "病因", "流行性腮腺炎"),)).supported == ("流行性腮腺炎",)


def test_what_the_question_named_counts_neither_way():
    result = checked("您说的恶心和咳嗽，偏头痛也可有畏光。", question="偏头痛会恶心、咳嗽吗？")
    assert as_sets(result) == ({"畏光"}, {"神经内科"}, set(), set())
    assert result.recall == 1 / 2
    everything_named = checked("是的。", DIARRHOEA, "肠炎会腹泻、发热吗？")
    assert everything_named.recall == 1
    assert everything_named.clean


@pytest.mark.parametrize(
    ("answer", "said", "right"),
    [
        ("百日咳有传染性。", "有", True),
        ("百日咳会传染。", "有", True),
        ("百日咳没有传染性。", "有", False),
        ("百日咳不会传染给别人。", "有", False),
        ("百日咳无传染性。", "无", True),
        ("百日咳不是传染病。", "无", True),
        ("百日咳有传染性。", "无", False),
        ("百日咳是传染病，会传染。", "无", False),
    ],
)
def test_infectious_is_a_yes_or_a_no(answer, said, right):
    result = checked(answer, (("百日咳", "传染性", said),))
    assert (result.supported, result.missed) == (((f"{said}传染性",), ()) if right else ((), (f"{said}传染性",)))
    assert bool(result.contradicted) is not right
    assert result.unsupported == ()


def test_shares():
    result = AnswerCheck(("恶心",), ("畏光", "头晕"), ("咳嗽",), ("头晕",))
    assert (result.recall, result.precision, result.clean) == (1 / 3, 1 / 3, False)
    assert (checked("", ()).recall, checked("", ()).precision) == (1, 0)


# ---- the 500 records


@cache
def training():
    """Training records that cite facts, by form."""
    found = defaultdict(list)
    for one in real_examples():
        if one.split == "train" and one.facts:
            found[one.form].append(one)
    return dict(found)


def spread(seed, forms=()):
    """Training records in random order, the forms in turn."""
    rng = random.Random(seed)
    left = {form: rng.sample(said, len(said)) for form, said in training().items() if not forms or form in forms}
    while any(left.values()):
        yield from [said.pop() for said in left.values() if said]


def take(number, made):
    """The first `number` that could be made."""
    found = [one for _, one in zip(range(number), (one for one in made if one), strict=False)]
    assert len(found) == number
    return found


def check(example, answer):
    return check_answer(answer, example.facts, real_linker(), example.question.content)


def at_least(bar, right, total, missed):
    """Fail below the bar, with the share and some of what was missed."""
    share = f"{right} of {total} ({right / total:.1%}; at least {bar:.0%})"
    print(share)
    assert right / total >= bar, "\n".join([share, *map(str, missed[:25])])


def place(text, answer):
    """Where an answer lists a text, as a pattern; None where it does not."""
    pattern = re.compile(f"(?<=[、有括是为挂据从]){re.escape(text)}(?=[，。；、看]|等[，。；]|有关|是对)")
    return pattern if pattern.search(answer) else None


def unasked(example):
    """The objects that the answer lists and the question did not name."""
    asked = plain(example.question.content)
    return [object_ for _, _, object_ in example.facts if plain(object_) not in asked]


def test_built_answers_are_clean_and_complete():
    results = [(one, check(one, one.answer)) for one in take(500, spread(1))]
    missed = [(one.answer, said) for one, said in results if not said.clean or said.recall < 1]
    at_least(0.99, 500 - len(missed), 500, missed)


def with_wrong_entity(example, rng):
    """An answer with one object replaced by one that the raw graph does not state of any of its subjects."""
    if example.form == "infectious":
        return re.sub("([有无])传染性", lambda found: {"有": "无", "无": "有"}[found[1]] + "传染性", example.answer)
    asked, subjects = plain(example.question.content), {subject for subject, _, _ in cited(example)}
    named = subjects | {object_ for _, _, object_ in cited(example)}
    stated = {one for subject in subjects for said in raw_graph()[subject].values() for one in said}
    for _, predicate, object_ in rng.sample(example.facts, len(example.facts)):
        pattern = place(object_, example.answer) if object_ in unasked(example) else None
        for wrong in rng.sample(others(predicate), min(50, len(others(predicate)))) if pattern else ():
            if wrong not in asked and wrong not in stated and not any(wrong in one or one in wrong for one in named):
                return pattern.sub(wrong, example.answer)
    return None


@cache
def others(predicate):
    """Objects that built records cite under a predicate: whole entities of one type."""
    facts = {fact for said in training().values() for one in said for fact in cited(one)}
    return sorted({object_ for _, key, object_ in facts if key == predicate})


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_one_wrong_entity_is_caught(seed):
    rng = random.Random(seed)
    changed = (answer and (one, answer) for one in spread(seed) for answer in [with_wrong_entity(one, rng)])
    results = [(one, answer, check(one, answer)) for one, answer in take(500, changed)]
    assert {one.form for one, _, _ in results} == set(training())
    missed = [(one.form, answer) for one, answer, said in results if said.clean]
    at_least(0.95, 500 - len(missed), 500, missed)


@pytest.mark.parametrize("same_form", [False, True])
def test_the_answer_to_another_question_is_flagged(same_form):
    rng, missed = random.Random(1), []
    for one in take(500, spread(1)):
        subjects = {subject for subject, _, _ in cited(one)}
        forms = [one.form] if same_form else list(training())
        other = one
        while subjects & {subject for subject, _, _ in cited(other)}:
            other = rng.choice(training()[rng.choice(forms)])
        said = check(other, one.answer)
        if said.clean and said.recall == 1:
            missed.append((one.answer, other.facts))
    at_least(0.95, 500 - len(missed), 500, missed)


def with_denial(example, denial):
    """(record, answer with the last object of a list denied, that object): 甲、乙等，… → 甲等，没有乙，…"""
    for object_ in unasked(example):
        last = re.compile(f"、{re.escape(object_)}(等?)(?=[，。；])")
        if last.search(example.answer) and example.answer.count(object_) == 1:
            return example, last.sub(rf"\1，{denial}{object_}", example.answer), object_
    return None


DONE = ("examinations", "treatment", "vignette_examinations", "vignette_treatment")
LISTS = (*DONE, "symptoms", "complications", "exam_diseases")


@pytest.mark.parametrize(
    ("denial", "forms"),
    [*((denial, LISTS) for denial in ("没有", "否认", "无", "未见", "不包括", "不会有")), ("不需要", DONE)],
)
def test_a_denied_object_is_contradicted(denial, forms):
    missed = []
    for example, answer, object_ in take(200, (with_denial(one, denial) for one in spread(1, forms))):
        before, said = check(example, example.answer), check(example, answer)
        gone = set(before.supported) - set(said.supported)
        if len(gone) != 1 or gone != set(said.contradicted):
            missed.append((answer, object_, said.supported, said.contradicted))
    at_least(0.95, 200 - len(missed), 200, missed)


def test_everyday_expressions_stay_supported():
    rng, listing = random.Random(1), defaultdict(list)
    for example in spread(1):
        for object_ in unasked(example):
            if place(object_, example.answer):
                listing[object_].append(example)
    table = resources.files("xinglin.knowledge").joinpath("lay_terms.tsv").read_text("utf-8").splitlines()
    pairs = [row.split("\t") for row in table if row.strip() and not row.startswith("#")]
    pairs = rng.sample([(said, meant) for said, meant in pairs if meant in listing], 150)
    missed = []
    for said, meant in pairs:
        example = rng.choice(listing[meant])
        answer = place(meant, example.answer).sub(said, example.answer)
        if set(check(example, answer).supported) != set(check(example, example.answer).supported):
            missed.append((said, meant, answer))
    at_least(0.90, 150 - len(missed), 150, missed)


DEPARTMENTS = (("偏头痛", "就诊科室", "神经内科"), ("痔疮病", "就诊科室", "肛肠科"))
CODES = (("偏头痛", "ICD10", "G43.9"), ("内痔", "ICD10", "I84.2"))


@pytest.mark.parametrize(
    ("answer", "facts", "question"),
    [
        ("偏头痛的就诊科室是骨科，所以挂骨科是对的。", DEPARTMENTS[:1], "偏头痛是挂骨科吗？"),
        ("偏头痛的就诊科室是神经内科，是的，可以挂骨科。", DEPARTMENTS[:1], "偏头痛是挂骨科吗？"),
        ("偏头痛的就诊科室是神经内科，痔疮病的就诊科室是肛肠科，所以是同一个科室。", DEPARTMENTS, ""),
        ("偏头痛的就诊科室是肛肠科，痔疮病的就诊科室是神经内科，所以不是同一个科室。", DEPARTMENTS, ""),
        ("偏头痛的ICD-10编码是G43.9，内痔的ICD-10编码是I84.2，两者是同一种病。", CODES, ""),
        ("偏头痛的ICD-10编码是I84.2，内痔的ICD-10编码是G43.9，两者不是同一种病。", CODES, ""),
        ("肺炎的症状有恶心；胃炎的症状有咳痰。", (("肺炎", "常见症状", "咳痰"), ("胃炎", "常见症状", "恶心")), ""),
    ],
)
def test_a_flipped_verdict_or_a_swapped_side_is_seen(answer, facts, question):
    assert checked(answer, facts, question).contradicted


@pytest.mark.parametrize(
    ("answer", "facts", "question"),
    [
        ("偏头痛的就诊科室是神经内科，不是骨科，请按神经内科挂号。", DEPARTMENTS[:1], "偏头痛是挂骨科吗？"),
        ("偏头痛的就诊科室是神经内科，所以不建议挂骨科。", DEPARTMENTS[:1], "偏头痛是挂骨科吗？"),
        ("偏头痛的就诊科室是神经内科，痔疮病的就诊科室是肛肠科，所以不是同一个科室。", DEPARTMENTS, ""),
        ("偏头痛的ICD-10编码是G43.9，内痔的ICD-10编码是I84.2，两者不是同一种病。", CODES, ""),
        ("肺炎的症状有咳痰；胃炎的症状有恶心。", (("肺炎", "常见症状", "咳痰"), ("胃炎", "常见症状", "恶心")), ""),
    ],
)
def test_and_the_right_ones_pass(answer, facts, question):
    assert checked(answer, facts, question).clean
