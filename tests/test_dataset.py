"""Instruction data from the real graph (fetched once from the package index into the cache)."""

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter

import pytest

from xinglin.dataset import formats
from xinglin.dataset.build import DataBuild, build_examples, kinds_of_input, records_path, split_entries, write_data
from xinglin.dataset.clean import clean
from xinglin.dataset.forms import MAKERS
from xinglin.dataset.split import groups, held_out, similar_pairs
from xinglin.dataset.vignettes import person
from xinglin.dataset.wording import load_wording
from xinglin.errors import UserError
from xinglin.knowledge.graph import Graph, load_cmekg
from xinglin.knowledge.policy import ANSWERABLE, EMERGENCY, RED_FLAGS, excluded
from xinglin.knowledge.rules import reject
from xinglin.knowledge.terms import normalize
from xinglin.records import Fact, read_examples, to_alpaca

WORDING = load_wording()


@pytest.fixture(scope="session")
def graph():
    return load_cmekg()


@pytest.fixture(scope="session")
def cleaned(graph):
    return clean(graph)


@pytest.fixture(scope="session")
def entries(cleaned):
    return {entry.name: entry for entry in cleaned.entries}


@pytest.fixture(scope="session")
def built(tmp_path_factory, graph):
    path = tmp_path_factory.mktemp("data") / "llama_data.json"
    write_data(DataBuild(output_path=str(path)))
    return path, read_examples(records_path(path))


def of(examples, split):
    return [one for one in examples if one.split == split]


def lines_of(example):
    """The lines of `input` as (about, word, objects)."""
    found = []
    for line in example.question.input.splitlines():
        head, _, listed = line.partition("：")
        about, _, word = head.rpartition("的")
        found.append((about, word, tuple(listed.removesuffix("等").split("、"))))
    return found


def test_the_real_graph_has_its_known_size(graph):
    assert len(graph) == 27_403
    assert graph.triples == 967_409
    assert sum(row[2] for row in graph.predicates()) == 967_409
    assert graph.types()["disease"] > 6_000


def test_size_forms_and_shares(built):
    _, examples = built
    train = of(examples, "train")
    assert len(train) == 8000
    forms = Counter(one.form for one in train)
    assert set(forms) == set(WORDING.forms) == set(MAKERS)
    total = sum(form.weight for form in WORDING.forms.values())
    for name, form in WORDING.forms.items():
        assert forms[name] == pytest.approx(8000 * form.weight / total, rel=0.05), name
    shares = Counter(one.knowledge for one in train)
    assert shares["facts"] == pytest.approx(4800, rel=0.01)
    assert shares["other_facts"] == pytest.approx(1200, rel=0.02)
    assert shares["none"] == pytest.approx(2000, rel=0.02)
    assert all(bool(one.question.input) == (one.knowledge != "none") for one in train)
    assert all(one.source and one.licence and one.form for one in examples)


def test_files_agree_and_hold_exactly_the_three_keys(built):
    path, examples = built
    rows = json.loads(path.read_text("utf-8"))
    assert all(list(row) == ["instruction", "input", "output"] for row in rows)
    train = [one for one in examples if one.split == "train"]
    assert rows == [to_alpaca(one) for one in train]
    assert len([row.example for row in formats.read(path)]) == 8000
    summary = json.loads(path.with_suffix(".summary.json").read_text("utf-8"))
    assert summary["records"]["train"] == 8000
    assert summary["answers_refused_by_the_fact_check"] == {}
    dropped = [json.loads(line) for line in path.with_suffix(".dropped.jsonl").read_text("utf-8").splitlines()]
    assert Counter(row["rule"] for row in dropped) == Counter(summary["facts_dropped_by_rule"])
    assert set(dropped[0]) == {"fact", "rule"}


def test_questions_do_not_repeat(built):
    for split in ("train", "unseen_disease", "seen_fact"):
        records = of(built[1], split)
        assert len({one.id for one in records}) == len(records)
        asked = Counter((one.question.content, one.question.input) for one in records)
        assert max(asked.values()) == 1


def test_nothing_is_lost_between_graph_ledger_and_entries(cleaned, entries, graph):
    """Every part of every fact looked at is an object of its subject, or its fact stands in the ledger with a rule."""
    assert all(one.rule for one in cleaned.dropped)
    dropped = {(one.fact.subject, one.fact.predicate, one.fact.object) for one in cleaned.dropped}
    looked_at = 0
    for topic, predicates in ANSWERABLE.items():
        for fact in graph.select(predicates):
            looked_at += 1
            if (fact.subject, fact.predicate, fact.object) in dropped:
                continue
            kept = entries[normalize(fact.subject)].objects(topic)
            parts = re.split("[;；、]", fact.object) if topic == "department" else [fact.object]
            assert {normalize(part).replace("无传染性", "无") for part in parts} <= set(kept), fact
    assert looked_at == cleaned.facts > 150_000


def test_the_same_seed_gives_the_same_bytes_in_any_process(tmp_path):
    """Of all four files; sets are in another order in every process, so two are needed."""
    code = "from xinglin.dataset.build import *; write_data(DataBuild({!r}, num_records=300, num_eval=20, seed={}))"
    for place, order, seed in (("a", "1", 42), ("b", "2", 42), ("c", "1", 43)):
        path = tmp_path / place / "data.json"
        environment = {**os.environ, "PYTHONHASHSEED": order}
        subprocess.run([sys.executable, "-c", code.format(str(path), seed)], check=True, env=environment)
    files = {place: {one.name: one.read_bytes() for one in (tmp_path / place).iterdir()} for place in "abc"}
    assert len(files["a"]) == 4
    assert files["a"] == files["b"]
    assert files["a"]["data.json"] != files["c"]["data.json"]


def test_a_kill_leaves_the_old_files_or_the_new(tmp_path):
    """Killed at four moments of a build that would change every file."""
    path = tmp_path / "data.json"
    code = "from xinglin.dataset.build import *; write_data(DataBuild({!r}, num_records=300, num_eval=20, seed={}))"
    subprocess.run([sys.executable, "-c", code.format(str(path), 1)], check=True)
    old = {one.name: one.read_bytes() for one in tmp_path.iterdir()}
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", code.format(str(path), 2)], check=True)
    whole = time.monotonic() - started
    new = {one.name: one.read_bytes() for one in tmp_path.iterdir()}
    assert old.keys() == new.keys()
    depends_on_the_seed = {name for name in new if old[name] != new[name]}  # all but the ledger of the cleaning
    assert len(depends_on_the_seed) == 3
    for seed, share in enumerate((0.3, 0.9, 0.97, 1.0), 3):
        before = {name: (tmp_path / name).read_bytes() for name in new}
        running = subprocess.Popen([sys.executable, "-c", code.format(str(path), seed)])
        time.sleep(whole * share)
        running.kill()
        running.wait()
        after = {name: (tmp_path / name).read_bytes() for name in new}
        changed = {name for name in new if before[name] != after[name]}
        assert changed in (set(), depends_on_the_seed), changed


def test_grounded_answers_stand_on_their_input(built):
    for example in built[1]:
        shown = [(about, one) for about, _, objects in lines_of(example) for one in objects]
        if example.knowledge == "facts":
            for subject, _, object_ in example.facts:
                assert {(normalize(subject), object_), ("两者", object_)} & set(shown), example
        elif example.knowledge == "other_facts":
            assert example.facts == ()
            assert "资料中没有" in example.answer


def test_what_a_comparison_calls_shared_is_shared(built, entries):
    compared = [one for one in built[1] if one.form in ("comparison", "same_cause") and one.answer.startswith("两者")]
    assert len(compared) > 300
    for example in compared:
        topic = "causes" if example.form == "same_cause" else "symptoms"
        word = WORDING.words[topic]
        shared, only_a, only_b = re.match(
            f"两者的共同{word}有(.+?)；.+?的其他{word}有(.+?)；.+的其他{word}有(.+?)。", example.answer
        ).groups()
        one, other = (entries[normalize(name)] for name in dict.fromkeys(subject for subject, _, _ in example.facts))
        left, right = set(one.objects(topic)), set(other.objects(topic))
        assert set(shared.split("、")) <= left & right
        assert set(only_a.split("、")) <= left - right
        assert set(only_b.split("、")) <= right - left


def test_a_no_is_never_a_missing_triple(built, entries, graph):
    """Negatives rest on another organ's department, other codes, other kinds of cause, or 传染性 无."""
    seen = Counter()
    for example in (one for one in built[1] if one.facts):
        if example.form == "verify_department" and "不" in example.answer.partition("，")[2]:
            asked = re.search("不是(.+?)，|不建议挂(.+?)。", example.answer)
            wrong = next(filter(None, asked.groups()))
            entry = entries[normalize(example.facts[0][0])]
            assert wrong not in entry.objects("department")
            assert not {"内科", "外科", "儿科", "急诊科"} & {wrong, *entry.objects("department")}
            seen["department"] += 1
        elif example.form == "verify_alias" and "编码" in example.answer:
            first, second = (object_ for _, _, object_ in example.facts)
            assert first[:3] != second[:3]
            seen["alias"] += 1
        elif example.form == "infectious" and "无传染性" in example.answer:
            subject = example.facts[0][0]
            assert graph.get(subject).facts["传染性"][0] in ("无", "无传染性")
            seen["infectious"] += 1
        elif example.form == "same_department" and re.search("不是同一|分别", example.answer):
            assert len({object_ for _, _, object_ in example.facts}) == 2
            seen["same_department"] += 1
    assert min(seen[key] for key in ("department", "alias", "infectious", "same_department")) > 30


def test_vignettes_fit_their_disease(built, entries):
    vignettes = [one for one in built[1] if one.form.startswith("vignette")]
    assert len(vignettes) > 500
    for example in vignettes:
        if any(flag in example.question.content for flag in RED_FLAGS):  # whether or not there is an answer
            assert re.match("有.*，(属于急症信号，请立即就医或拨打120|请尽快就医)。|可能是急症", example.answer), (
                example
            )
    for example in (one for one in vignettes if one.facts):
        entry = entries[normalize(example.facts[0][0])]
        who, question = person(entry), example.question.content
        assert who is not None
        assert not re.search("NaN|None", question)
        unit, low, high = who.unit, who.low, who.high
        age = int(re.search(r"(\d+)(?=个月|天|岁)", question)[1])
        assert low <= age <= high
        assert unit in question
        said = {"女" if re.search("女|妈", question.partition("，")[0] + question[:30]) else "男"}
        assert said <= set(who.sexes), example
        assert re.search("可能", example.answer)
        assert re.search("医生|就医|就诊", example.answer)


def test_age_and_sex_fit_by_words_of_our_own(built):
    """Judged by lists that the build does not know: who speaks, how old, and what the disease and its signs are."""
    female = re.compile("卵巢|子宫|阴道|外阴|妊娠|产后|产褥|月经|痛经|白带|输卵管|宫颈|孕|乳腺癌")
    male = re.compile("前列腺|睾丸|阴茎|附睾|精囊|阳痿|龟头|包皮")
    seen = Counter()
    for example in (one for one in built[1] if one.form.startswith("vignette") and one.facts):
        question, name = example.question.content, normalize(example.facts[0][0])
        told = name + question.split("，", 1)[1]
        man = bool(re.search("男|爸", question))
        assert man is not bool(re.search("女|妈", question)), question
        if female.search(told):
            assert not man, (name, question)
            seen["female"] += 1
        if male.search(told):
            assert man, (name, question)
            seen["male"] += 1
        years = re.search(r"(\d+)岁", question)
        if re.search("小儿|儿童", name):
            assert not years or int(years[1]) < 18, (name, question)
            seen["child"] += 1
        if re.search("新生儿", name):
            assert re.search(r"\d+天", question), (name, question)
        if re.search("老年", name):
            assert years and int(years[1]) >= 60, (name, question)
        if re.search("妊娠|产后|产褥|月经", told):
            assert years and 13 < int(years[1]) <= 50, (name, question)
    assert len(seen) == 3
    assert min(seen.values()) > 3


def test_no_male_ovaries(entries):
    assert person(entries["卵巢囊肿"]).sexes == "女"
    assert person(entries["前列腺增生"]).sexes == "男"
    assert person(entries["前列腺增生"]).low > 50
    assert person(entries["小儿肺炎"]).high <= 12


def test_signs_of_a_vignette_belong_to_one_disease_only(built, entries):
    raw = {name: {normalize(one) for one in entry.raw.get("symptoms", ())} for name, entry in entries.items()}
    checked = 0
    for example in built[1]:
        if example.form == "vignette_disease" and example.facts:
            own = normalize(example.facts[0][0])
            signs = {o for s, _, o in example.facts if normalize(s) == own and o in example.question.content}
            if len(signs) == 4 and checked < 100:
                family = {name for name, shown in raw.items() if signs <= shown}
                in_split = family if example.split == "unseen_disease" else family - held_out(list(entries.values()))
                if example.split == "train":
                    assert in_split == {own}
                    checked += 1
    assert checked == 100


def test_no_held_out_subject_reaches_training(built, cleaned):
    held = held_out(cleaned.entries)
    assert 0.05 < len(held) / len(cleaned.entries) < 0.15
    family = groups(cleaned.entries)
    assert not {family[name] for name in held} & {family[e.name] for e in cleaned.entries if e.name not in held}
    for example in built[1]:
        subjects = {about for about, _, _ in lines_of(example)} - {"两者"}
        subjects |= {normalize(subject) for subject, _, _ in example.facts}
        if example.split == "unseen_disease":
            assert subjects <= held
        else:
            assert not subjects & held
            assert not {object_ for _, _, object_ in example.facts} & held


def test_no_leak_of_triples_or_questions(built):
    """As it is defined: a triple, or a question that is the same once its template's words are taken away."""
    train, unseen = of(built[1], "train"), of(built[1], "unseen_disease")
    assert not {fact for one in train for fact in one.facts} & {fact for one in unseen for fact in one.facts}
    templates = {
        form.name: [
            re.compile(re.sub(r"\\{\w+\\}", "(.+?)", re.escape(text)) + "$") for text in (*form.train, *form.evaluation)
        ]
        for form in WORDING.forms.values()
    }

    def left(example):
        """What a question says beside its template."""
        question = example.question.content
        bare = [question, *(question.removeprefix(lead) for lead in WORDING.leads if question.startswith(lead))]
        found = next(filter(None, (shape.match(one) for one in reversed(bare) for shape in templates[example.form])))
        return example.form, tuple(sorted(normalize(part) for part in found.groups()))

    assert not {left(one) for one in train} & {left(one) for one in unseen}
    seen = of(built[1], "seen_fact")
    assert not {one.question.content for one in train} & {one.question.content for one in (*seen, *unseen)}


def test_seen_facts_were_seen(built):
    known = {fact for one in of(built[1], "train") for fact in one.facts}
    seen = of(built[1], "seen_fact")
    assert len(seen) == 300
    assert all(one.facts and set(one.facts) <= known for one in seen)


def test_evaluation_uses_phrasings_that_training_does_not(built):
    for form in WORDING.forms.values():
        assert not set(form.train) & set(form.evaluation)
        assert len(form.train) >= 8
        assert len(form.evaluation) >= 2
        assert len(form.answers) >= 1
    train, rest = of(built[1], "train"), [one for one in built[1] if one.split != "train"]
    shapes = {
        name: [re.compile(re.sub(r"\\{\w+\\}", ".+", re.escape(text))) for text in form.evaluation]
        for name, form in WORDING.forms.items()
    }
    assert not any(shape.fullmatch(one.question.content) for one in train for shape in shapes[one.form])
    assert all(any(shape.fullmatch(one.question.content) for shape in shapes[one.form]) for one in rest)


def test_nothing_that_policy_excludes_is_in_the_data(built):
    for example in built[1]:
        assert not any(excluded(part) for fact in example.facts for part in fact)
        assert not re.search(r"\d\s*(mg|毫克|片|粒)|用量|剂量", example.answer)


def test_emergencies_end_with_the_number(built):
    asked = [one for one in built[1] if one.form in ("symptoms", "department", "causes") and one.facts]
    urgent = [one for one in asked if EMERGENCY.search(normalize(one.facts[0][0]))]
    assert len(urgent) > 50
    assert all(one.answer.endswith("急症请立即拨打120。") for one in urgent)


URGENT = """
    急性心肌梗死 心绞痛 脑出血 有机磷中毒 触电 淹溺 急性心力衰竭 呼吸衰竭 羊水栓塞 胎盘早剥 脐带脱垂 心脏压塞
    气管支气管异物 睾丸扭转 消化道出血 急性闭角型青光眼 视网膜中央动脉阻塞 肾上腺危象 急性肠梗阻 异位妊娠
    蛛网膜下腔出血 狂犬病 破伤风 急性会厌炎 烧伤 张力性气胸
"""
NOT_URGENT = """
    肾小管性酸中毒 代谢性碱中毒 鼻中隔穿孔 鼓膜穿孔 烧伤后肌肉萎缩 脑出血后遗症 慢性稳定型心绞痛 偏头痛
    陈旧性心肌梗死 白化病 痔
"""


def test_what_cannot_wait_and_what_can():
    assert [name for name in URGENT.split() if not EMERGENCY.search(name)] == []
    assert [name for name in NOT_URGENT.split() if EMERGENCY.search(name)] == []


def test_unseen_questions_carry_a_strangers_facts(built):
    for example in of(built[1], "unseen_disease"):
        asked = {normalize(subject) for subject, _, _ in example.facts} | {"两者"}
        assert {about for about, _, _ in lines_of(example)} - asked


def test_lists_with_a_red_flag_say_when_to_call(built):
    asked = [one for one in built[1] if one.form in ("symptoms", "complications") and one.facts]
    flagged = [one for one in asked if {object_ for _, _, object_ in one.facts} & (RED_FLAGS - {"便血", "发绀"})]
    assert len(flagged) > 200
    assert all("请立即拨打120。" in one.answer for one in flagged)


@pytest.mark.parametrize(
    ("topic", "text", "rule"),
    [
        ("symptoms", "甚至昏迷", "fragment"),
        ("symptoms", "恶心、呕吐", "punctuation"),
        ("symptoms", "形成慢性炎症", "fragment"),
        ("symptoms", "发热等", "fragment"),
        ("symptoms", "初发性或维持性睡眠障碍[失眠症]", "punctuation"),
        ("symptoms", "痛", "length"),
        ("symptoms", "溃疡病", "forced normalisation"),
        ("symptoms", "病史", "fragment"),
        ("symptoms", "体重", "generic word"),
        ("symptoms", "有自杀倾向", "policy"),
        ("symptoms", "感觉异常", None),
        ("symptoms", "易激惹", None),
        ("symptoms", "Bruns征", None),
        ("symptoms", "coma", "not Chinese"),
        ("symptoms", "\ue001肿", "private-use glyph"),
        ("symptoms", "发热<br/>", "HTML remnant"),
        ("symptoms", "肝大(轻度", "unbalanced brackets"),
        ("causes", "遗传等有关", "fragment"),
        ("causes", "肺炎链球菌等感染", "list inside"),
        ("causes", "病因不明", "generic word"),
        ("examinations", "实验室检查", "generic word"),
        ("examinations", "鼓音", "not an examination"),
        ("examinations", "MRI", None),
        ("department", "门诊", "not a department"),
        ("treatment", "青霉素治疗", "treatment by drug"),
        ("treatment", "糖皮质激素", "treatment by drug"),
        ("treatment", "口服药物治疗", "policy"),
        ("treatment", "躯体形式障碍的治疗", "generic word"),
        ("treatment", "手术指征", "generic word"),
        ("treatment", "手术切除", None),
        ("route", "鼻咽部", "generic word"),
        ("route", "淋巴播散", "not a route"),
        ("route", "飞沫吸入", None),
        ("population", "肺气肿", "not a group of people"),
        ("population", "黑人", "policy"),
        ("population", "40岁以上女性", None),
        ("population", "肥胖者", None),
        ("body_site", "分支胰管炎", "not a body site"),
        ("body_site", "胸骨后", None),
        ("infectious", "贫血", "neither yes nor no"),
        ("diseases", "没有这个病名", "not a disease of the graph"),
        ("symptoms", "恶心", None),
    ],
)
def test_cleaning_rules(graph, topic, text, rule):
    assert reject(topic, text, graph) == rule


def small(facts):
    """A graph of (subject, predicate, object), all diseases."""
    return Graph.from_facts((Fact(s, "disease", p, o, "test") for s, p, o in facts), {"test": "none"})


def test_substrings_of_siblings_go_and_order_follows_support():
    facts = [(f"某病{n}", "常见症状", one) for n in "甲乙丙丁戊己庚" for one in ("呕吐", "头痛", "偏头痛")]
    facts += [(f"某病{n}", "常见症状", "恶心") for n in "甲乙"]
    cleaned = clean(small(facts))
    assert cleaned.entries[0].objects("symptoms") == ("偏头痛", "呕吐")  # 头痛 inside 偏头痛; 恶心 in two diseases only
    assert cleaned.rules() == {"substring of a sibling": 7, "rare": 2}


def test_rules_that_look_at_more_than_one_fact():
    facts = [(f"某病{n}", "就诊科室", "内科；外科") for n in "甲乙丙丁戊"]
    facts += [
        ("肺结核病", "传染性", "无"),
        ("骨折甲", "传染性", "有"),
        ("骨折甲", "传染性", "无"),
        ("骨折病", "传染性", "无传染性"),
        ("某病乙", "传染性", "无"),
    ]
    facts += [("肾移植术", "就诊科室", "外科"), ("肝硬化", "病因", "上消化道出血")]
    cleaned = clean(small(facts))
    by_name = {entry.name: entry for entry in cleaned.entries}
    assert "骨折甲" not in by_name
    assert by_name["某病甲"].objects("department") == ("内科", "外科")
    assert by_name["骨折病"].objects("infectious") == ("无",)
    assert "肺结核病" not in by_name
    assert cleaned.rules() == {
        "both yes and no": 2,
        "may be infectious after all": 2,
        "subject name": 1,
        "known to be wrong": 1,
    }


def test_statements_that_agree_come_first():
    facts = [(f"某病{n}", "常见症状", one) for n in "甲乙丙丁" for one in ("呕吐", "头晕")]
    facts += [("某病甲", "临床症状及体征", "头晕"), ("某病甲", "常见症状", "昏迷"), ("某病乙", "常见症状", "昏迷")]
    facts += [("某病丙", "常见症状", "昏迷"), ("某病丁", "常见症状", "腹痛")]
    first = next(entry for entry in clean(small(facts)).entries if entry.name == "某病甲")
    assert first.objects("symptoms") == ("昏迷", "头晕", "呕吐")  # a red flag, then two statements, then one


def test_similar_pairs_equal_a_plain_search():
    import random

    rng = random.Random(0)
    sets = {f"d{n}": tuple(rng.sample("abcdefghij", rng.randint(1, 8))) for n in range(120)}

    def jaccard(one, other):
        return len(set(one) & set(other)) / len(set(one) | set(other))

    names = list(sets)
    plain = {(a, b) for i, a in enumerate(names) for b in names[:i] if jaccard(sets[a], sets[b]) >= 0.6}
    assert set(similar_pairs(sets)) == plain


def test_bad_settings(cleaned, graph):
    with pytest.raises(UserError, match="must lie between 0 and 1"):
        build_examples(cleaned, graph, DataBuild(grounded=0.9, unanswerable=0.2))
    with pytest.raises(UserError, match="must not be negative"):
        build_examples(cleaned, graph, DataBuild(num_eval=-1))
    with pytest.raises(UserError, match="'symptom' is unknown; did you mean 'symptoms'"):
        build_examples(cleaned, graph, DataBuild(forms="symptom"))
    with pytest.raises(UserError, match="the graph gives only 1"):
        build_examples(cleaned, graph, DataBuild(num_records=5_000, forms="route"))


def test_some_forms_only(cleaned, graph):
    built = build_examples(cleaned, graph, DataBuild(num_records=50, num_eval=5, forms="route, department"))
    forms = Counter(one.form for one in built.examples if one.split == "train")
    assert set(forms) == {"route", "department"}
    assert sum(forms.values()) == 50


def test_a_graph_without_usable_facts(tmp_path):
    graph = small([("某病甲", "分类", "内科病")])
    with pytest.raises(UserError, match="nothing to build records from"):
        build_examples(clean(graph), graph, DataBuild())


def test_kinds_keep_their_shares_within_every_twenty():
    import random
    from itertools import islice

    kinds = list(islice(kinds_of_input((0.6, 0.15), random.Random(1)), 100))
    for start in range(0, 100, 20):
        assert Counter(kinds[start : start + 20]) == {"facts": 12, "other_facts": 3, "none": 5}
    odd = Counter(islice(kinds_of_input((1 / 3, 1 / 3), random.Random(1)), 3000))
    assert max(odd.values()) - min(odd.values()) <= 20


def test_training_facts_name_no_held_out_disease(cleaned):
    train, held, left_out = split_entries(cleaned)
    assert left_out
    assert {one.rule for one in left_out} == {"names a held-out subject"}
    names = {entry.name for entry in held}
    assert not any(one in names for entry in train for topic in entry.facts for one in entry.objects(topic))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("forms: [1]", "needs a mapping"),
        ("forms: {symptom: {}}", "form 'symptom' is unknown; did you mean 'symptoms'"),
        ("forms: {symptoms: {wieght: 2}}", "wieght"),
        ("forms: {symptoms: {weight: -2}}", "must be numbers"),
        ("forms: {symptoms: {train: ['{d}{q}有哪些症状']}}", "unknown placeholder {q}"),
        ("forms: {symptoms: {train: ['一般来说，{d}会让人出现什么症状？']}}", "training and an evaluation phrasing"),
        ("forms: {symptoms: {train: [有哪些症状？]}}", "lacks {d}"),
        ("forms: {symptoms: {answers: ['{d}不知道']}}", "lacks {o}"),
        ("forms: {symptoms: {answers: []}}", "with at least one"),
        ("forms: {symptoms: [a]}", "means nothing here"),
        ("{forms: {symptoms: {}}, leads: null}", "leads must be a list"),
        ("forms: [", "cannot be read"),
    ],
)
def test_bad_forms_files(tmp_path, text, message):
    path = tmp_path / "forms.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(UserError, match=re.escape(message)) as error:
        load_wording(path)
    assert "forms.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_own_weights_need_only_name_what_differs(tmp_path):
    path = tmp_path / "forms.yaml"
    path.write_text("forms: {symptoms: {weight: 1}, department: {weight: 3}}", "utf-8")
    wording = load_wording(path)
    assert list(wording.forms) == ["symptoms", "department"]
    assert wording.forms["symptoms"].train == WORDING.forms["symptoms"].train
