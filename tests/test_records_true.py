"""Every built record against the raw graph: what it cites stands there, it says that, and nothing else medical.

    可能是偏头痛，偏头痛的检查有CT、MRI等，请听医生安排。
    → signs…, (偏头痛, 检查, CT), (偏头痛, 检查, MRI), and a rest without names: 可能是…，…的检查有…，请听医生安排。

The reader of answers here is its own: it knows how the statements are worded, not how the build or the linker work.
"""

import re
from collections import Counter
from functools import cache
from typing import NamedTuple

import pytest
from raw_graph import PREDICATES, cited, plain, raw_graph, raw_objects, real_examples

_X = "[^，。；：]"
_WORD = f"(?P<word>{'|'.join(PREDICATES)})"
_VERB = "(?:主要|常见的|可能|多|也)?(?:有|包括|是|为)"
_SAID = {
    "listed": rf"(?P<who>{_X}+?)的(?P<part>共同|其他)?{_WORD}{_VERB}(?P<list>{_X}+)",
    "infectious": rf"(?P<who>{_X}+?)(?P<list>[有无])传染性",
    "signs": rf"(?:根据|从)(?P<list>{_X}+?)看?，可能[是与](?P<who>{_X}+?)(?:有关)?(?=[，。])",
    "flags": rf"有(?P<list>{_X}+)，(?:属于急症信号|请尽快就医)",
    "repeated": rf"出现(?P<list>{_X}+?)请立即拨打",
    "ruled out": rf"也要排除(?P<who>{_X}+)",
    "yes": rf"(?:所以挂|是的，可以挂)(?P<list>{_X}+?)(?:是对的)?(?=。)",
    "no": rf"(?:，不是(?=\w+，请按)|所以不建议挂)(?P<list>{_X}+)",
    "instead": rf"请按(?P<list>{_X}+?)挂号",
    "missing": rf"(?P<who>{_X}+?)的{_WORD}(?=资料中没有提到)",
}
_IMPLIED = {"infectious": "传染性", "signs": "症状", "flags": "症状", "yes": "就诊科室", "instead": "就诊科室"}
BOTH = "两者"

EXEMPT = {
    "并发症": "a topic's word, and a 'symptom' of the raw graph",
    "不适": "in 不适请就医",
    "中医": "in 中医师, who is to be asked about herbs",
}
"""Raw terms in the fixed words of answers, and why they say nothing medical there."""


class Said(NamedTuple):
    """One statement of an answer: who (empty: whom it is all about), the topic's word, what is listed."""

    kind: str
    who: str
    part: str
    word: str
    objects: tuple[str, ...]


def read(answer: str) -> tuple[list[Said], str]:
    """The statements of an answer, and its text with every name in them as `…`."""
    found, rest = [], list(answer)
    for kind, pattern in _SAID.items():
        for match in re.finditer(pattern, answer):
            parts = {"who": "", "part": "", "word": _IMPLIED.get(kind, ""), "list": ""} | match.groupdict("")
            objects = tuple(map(plain, re.sub("等$", "", parts["list"]).split("、"))) if parts["list"] else ()
            found.append(Said(kind, plain(parts["who"]), parts["part"], parts["word"], objects))
            for name in match.groupdict().keys() & {"who", "list"}:
                start, end = match.span(name)
                rest[start:end] = "\0" * (end - start)
    return found, re.sub("\0+", "…", "".join(rest))


def not_cited(answer: str, question: str, citations: set[tuple[str, str, str]]) -> list[object]:
    """What an answer states without a citation, and the citations that it does not state."""
    wrong: list[object] = []
    subjects = {subject for subject, _, _ in citations}
    used: set[tuple[str, str, str]] = set()
    for said in read(answer)[0]:
        if said.kind in ("no", "missing", "flags"):
            wrong += [one for one in (*said.objects, said.who) if one not in question]
            continue
        if said.kind == "repeated":
            wrong += [one for one in said.objects if one not in {object_ for _, _, object_ in citations}]
            continue
        if said.kind == "ruled out":
            used |= {one for one in citations if one[0] == said.who}
        for one in said.objects:
            stating = {(who, key, one) for who in subjects for key in PREDICATES[said.word]} & citations
            of = {who for who, _, _ in stating}
            wanted = subjects if said.who == BOTH else {said.who} if said.who else of
            wrong += [(said, one)] if not of or not wanted <= of else []
            used |= {triple for triple in stating if triple[0] in wanted}
        if said.who not in (subjects | {"", BOTH}):
            wrong.append(said.who)
    return [*wrong, *sorted(citations - used)]


@cache
def medical_terms() -> frozenset[str]:
    """Raw disease names, symptoms of at least 5 subjects, examinations of at least 3, departments."""
    diseases, counts = set(), Counter()
    for name, said in raw_graph().items():
        if said.keys() & {"就诊科室", "常见症状", "临床症状及体征", "ICD10", "并发症"}:
            diseases.add(name)
        counts.update((key, one) for key in ("常见症状", "检查", "就诊科室") for one in said.get(key, ()))
    least = {"常见症状": 5, "检查": 3, "就诊科室": 1}
    terms = diseases | {one for (key, one), times in counts.items() if times >= least[key]}
    return frozenset(one for one in terms if len(one) > 1) - EXEMPT.keys()


@cache
def terms_in(rest: str) -> tuple[str, ...]:
    return tuple(sorted(one for one in medical_terms() if one in plain(rest)))


@pytest.fixture(scope="module")
def examples():
    found = real_examples()
    assert len(found) == 8600
    return found


def fail(wrong):
    """Fail with the number of faults and the first of them."""
    texts = [f"{one.form} {one.id}: {why}\n  {one.question.content}\n  {one.answer}" for one, why in wrong[:8]]
    assert not wrong, f"{len(wrong)} faults in {len({one.id for one, _ in wrong})} of 8,600 records\n" + "\n".join(
        texts
    )


def test_every_citation_stands_in_the_raw_graph(examples):
    raw = raw_graph()
    fail([(one, (s, p, o)) for one in examples for s, p, o in cited(one) if o not in raw.get(s, {}).get(p, ())])


def test_answers_list_what_they_cite_and_cite_what_they_list(examples):
    found = ((one, not_cited(one.answer, plain(one.question.content), cited(one))) for one in examples)
    fail([(one, wrong) for one, wrong in found if wrong])


def test_nothing_else_medical_is_said(examples):
    found = ((one, terms_in(read(one.answer)[1])) for one in examples)
    fail([(one, terms) for one, terms in found if terms])
    assert all(any(word in read(one.answer)[1] for one in examples) for word in EXEMPT)


def test_records_that_abstain_cite_nothing_and_name_only_what_was_asked(examples):
    wrong = []
    for one in examples:
        said = read(one.answer)[0]
        if (one.knowledge == "other_facts") != (not one.facts):
            wrong.append((one, "cites"))
        elif not one.facts:
            missing = [part for part in said if part.kind == "missing"]
            heads = [f"{one.who}的{part}{one.word}：" for one in missing for part in ("", "其他")]
            lines = map(plain, one.question.input.splitlines())
            answered = any(line.startswith(tuple(map(plain, heads))) for line in lines) if heads else False
            kinds = [part.kind for part in said if part.kind != "flags"]
            silent = "vignette" in one.form or one.form == "verify_alias"
            if answered or kinds != ["missing"] * (not silent):
                wrong.append((one, said))
    fail(wrong)


def test_every_line_of_input_stands_in_the_raw_graph(examples):
    wrong = []
    for one in examples:
        subjects = {subject for subject, _, _ in cited(one)}
        for line in one.question.input.splitlines():
            who, _, word, objects = re.fullmatch(rf"(.+?)的(共同|其他)?{_WORD}：(.+)", line).groups()
            for subject in subjects if who == BOTH else {plain(who)}:
                listed = {plain(part) for part in re.sub("等$", "", objects).split("、")}
                if not listed <= raw_objects(subject, word):
                    wrong.append((one, line))
    fail(wrong)


def test_what_one_of_two_has_beside_the_shared_the_other_has_not(examples):
    wrong = []
    for one in examples:
        subjects = {subject for subject, _, _ in cited(one)}
        for said in read(one.answer)[0]:
            for other in subjects - {said.who} if said.part == "其他" else ():
                wrong += [(one, (other, both)) for both in set(said.objects) & raw_objects(other, said.word)]
    fail(wrong)


def test_the_raw_graph_says_nothing_against_a_no(examples):
    """Other causes, another department, another disease: the two share none in the raw graph."""
    word = {"same_cause": "病因", "same_department": "就诊科室", "verify_alias": "别名"}
    no = re.compile("所以不一致|两者并不一致|不是同一个科室|两者要分别挂号|两者不是同一种病|是两种不同的病")
    wrong, seen = [], Counter()
    for one in examples:
        subjects = {subject for subject, _, _ in cited(one)}
        if one.form in word and no.search(one.answer):
            seen[one.form] += 1
            left, right = ({who} | raw_objects(who, word[one.form]) for who in subjects)
            wrong += [(one, left & right)] if left & right else []
        for said in read(one.answer)[0]:
            if said.kind == "no":
                seen[one.form] += 1
                stated = {x for who in subjects for x in raw_objects(who, "就诊科室")}
                wrong += [(one, stated)] if stated & set(said.objects) else []
    assert set(seen) == {*word, "verify_department"}
    assert min(seen.values()) > 20
    fail(wrong)


def test_the_reader_sees_what_is_wrong(examples):
    """Of answers with one thing changed, the judging above misses none."""
    changes = {
        "listed": lambda one, subject: one.answer.replace("、", "、牙痛、" if "喘息" in one.answer else "、喘息、", 1),
        "beside": lambda one, subject: one.answer[:-1] + "，常伴发热。",
        "of another": lambda one, subject: one.answer.replace(subject, "喘息性白喉"),
        "unsaid": lambda one, subject: one.answer.split("、")[0] + "。",
    }
    stating = [one for one in examples if one.form in ("symptoms", "examinations", "treatment") and one.facts][:500]
    for change in changes.values():
        for one in stating:
            answer = change(one, plain(one.facts[0][0]))
            seen = not_cited(answer, plain(one.question.content), cited(one)) or terms_in(read(answer)[1])
            assert answer != one.answer
            assert seen, answer
