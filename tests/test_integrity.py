"""The integrity report finds every kind of dirt in a small graph, and cMeKG's in the counts that were read in it."""

import json

import pytest

from xinglin.errors import UserError
from xinglin.knowledge.commands import KgCheck, check_graph
from xinglin.knowledge.graph import Graph, load_cmekg
from xinglin.knowledge.integrity import check
from xinglin.records import Fact


def graph_of(*triples, source="s"):
    return Graph.from_facts([Fact(s, "", p, o, source) for s, p, o in triples], {source: "test"})


def counts(graph):
    return {one.name: one.count for one in check(graph)}


TEXTS = {
    "clause start": (["甚至昏迷", "也可见于儿童"], ["常染色体显性遗传", "再生障碍性贫血", "以色列", "当归"]),
    "clause end": (["呕吐等"], ["等渗"]),
    "forced name": (["溃疡病", "初发性或维持性睡眠障碍［失眠症］"], ["胃溃疡", "败血症"]),
    "brackets": (["脑瘫[脑性瘫痪]", "甲〔乙〕"], ["甲（乙）"]),
    "look-alikes": (["骨髄抑制", "癫癎"], ["骨髓抑制"]),
    "嚢": (["血胶嚢"], ["血胶囊"]),
    "private glyphs": (["口眼\ue81f斜"], ["口眼歪斜"]),
    "unbalanced": (["倍他米隆）", "妥布霉素〕", '"阴道炎'], ["倍他米隆（片）"]),
    "HTML": (["<label>片</label>", "a&nbsp;b"], ["年龄<30天", "a & b"]),
    "misread 0/O, 1/l": (["l0mg", "Capsu1es", "1Omg", "SuIfate"], ["10mg", "Insulin", "HumanInsulin", "C6H5Na3O7"]),
    "invisible": (["\xa0尿失禁", "a\u200bb"], ["尿 失禁"]),
    "em dash": (["9—15g"], ["9-15g"]),
    "label or citation": (["通用名称：克银丸", "说明书[引用日期2014]"], ["名称不详"]),
    "said twice": (["丹参提取物丹参提取物", "抗生素类/抗生素类"], ["丹参提取物"]),
    "several in one": (["恶心、呕吐"], ["恶心"]),
    "no answer": (["尚不明确"], ["无力"]),
    "not Chinese": (["Whipple disease"], ["T细胞", "β"]),
    "one character": (["痛"], ["疼痛"]),
    "numeric": (["6.4%", "2—2.5"], ["3天", "B12", "—"]),
    "empty": ([" "], ["无"]),
}


@pytest.mark.parametrize("name", TEXTS)
def test_text_rules(name):
    dirty, clean = TEXTS[name]
    graph = graph_of(*(("甲病", f"谓词{number}", text) for number, text in enumerate(dirty + clean)))
    finding = next(one for one in check(graph, 9) if one.name == name)
    assert (finding.count, finding.texts) == (len(dirty), len(dirty)), finding.examples


def test_a_word_that_is_no_dirt_in_some_predicates():
    graph = graph_of(("甲病", "英文名", "Whipple disease"), ("甲病", "传染性", "无"), ("甲病", "病因", "无"))
    assert counts(graph)["not Chinese"] == 0
    assert counts(graph)["no answer"] == 1


def test_siblings_spellings_duplicates_and_own_objects():
    graph = graph_of(
        ("甲病", "并发症", "肾炎"),
        ("甲病", "并发症", "肾盂肾炎"),
        ("甲病", "治疗", "肾炎"),
        ("乙病", "治疗", "CT 扫描"),
        ("乙病", "治疗", "CT扫描"),
        ("乙病", "病因", "CT扫描"),
        ("乙病", "治疗", "CT扫描"),
        ("乙病", "相关疾病", "乙病"),
    )
    found = {one.name: one for one in check(graph)}
    assert found["object within a sibling"].count == 1
    assert found["object within a sibling"].examples == ("甲病 – 并发症 – 肾炎",)
    assert found["spelling variants"].count == 1
    assert found["spelling variants"].examples == ("'CT扫描' ×3 / 'CT 扫描' ×1",)
    assert found["duplicate"].count == 1
    assert found["object is its subject"].examples == ("乙病 – 相关疾病 – 乙病",)
    assert found["synonymous predicates"].count == 0


def test_the_same_fact_of_two_sources_is_no_duplicate():
    both = Graph.merge([graph_of(("甲", "治疗", "休息")), graph_of(("甲", "治疗", "休息"), source="t")])
    assert counts(both)["duplicate"] == 0


def test_aliases_in_circles_are_reported_and_followed_by_nothing():
    graph = graph_of(
        ("甲", "别称", "乙"),
        ("乙", "别称", "甲"),
        ("丙", "又称", "丙"),
        ("丁", "别称", "通名"),
        ("戊", "同义词", "通名"),
        ("甲", "就诊科室", "内科"),
        ("乙", "就诊科室", "外科"),
    )
    found = {one.name: one for one in check(graph)}
    assert found["alias in a circle"].examples == ("丙 → 丙", "乙 → 甲")
    assert found["alias that is a subject"].count == 2
    assert found["alias, other department"].count == 2
    assert found["alias of several"].examples == ("通名 ← 丁、戊",)


def test_predicates_types_wrong_facts_and_contradictions():
    graph = graph_of(
        ("肝硬化", "病因", "上消化道出血"),
        ("甲病", "常见病因", "感染"),
        ("某片", "适应症", "头痛"),
        ("某片", "不良反应", "头痛"),
        ("怪胶嚢", "说明", "无"),
    )
    found = {one.name: one for one in check(graph)}
    assert found["known to be wrong"].examples == ("肝硬化 – 病因 – 上消化道出血",)
    assert found["synonymous predicates"].examples == ("常见病因 ×1 = 病因 ×1",)
    assert found["indication and adverse effect"].examples == ("某片: 头痛",)
    assert "怪胶嚢" in found["subject without a type"].examples
    assert found["damaged subject name"].examples == ("怪胶嚢 (嚢)",)
    assert found["predicate of one subject"].count == 5


def test_texts_that_pile_up_at_a_length_were_cut_there():
    cut = [("甲", f"p{n}", f"{n:02}" + "请咨询医师或药师后使用" + "药" * 7) for n in range(60)]
    finding = next(one for one in check(graph_of(*cut)) if one.name.startswith("cut"))
    assert (finding.name, finding.count) == ("cut at 20 characters", 60)


def test_report_is_printed_and_written(tmp_path, capsys):
    graph_of(("甲病", "病因", "a|b<br>\u200b"), ("甲病", "病因", "感染")).save(tmp_path / "g.parquet")
    check_graph(KgCheck(str(tmp_path / "g.parquet"), str(tmp_path / "report"), 1))
    printed = capsys.readouterr().out
    assert "1 facts      HTML: remnants of a web page" in printed
    assert r"a|b<br>\u200b ×1" in printed
    report = json.loads((tmp_path / "report" / "integrity.json").read_text("utf-8"))
    assert report["triples"] == 2
    assert {one["name"]: one["count"] for one in report["findings"]}["HTML"] == 1
    table = (tmp_path / "report" / "integrity.md").read_text("utf-8").splitlines()
    row = next(line for line in table if line.startswith("| HTML"))
    assert row.replace("\\|", "").count("|") == 5
    with pytest.raises(UserError, match="--examples -1"):
        check_graph(KgCheck(examples=-1))


CMEKG = {
    "object within a sibling": (137_048, 137_048),
    "clause start": (9_000, 13_000),
    "clause end": (3_782, 3_782),
    "forced name": (8_000, 20_000),
    "brackets": (2_746, 2_746),
    "look-alikes": (60, 150),
    "嚢": (21, 21),
    "private glyphs": (9, 9),
    "unbalanced": (120, 170),
    "HTML": (20, 20),
    "misread 0/O, 1/l": (40, 120),
    "cut at 23 characters": (2_972, 2_972),
    "not Chinese": (5_500, 7_000),
    "one character": (13_059, 13_059),
    "numeric": (239, 239),
    "spelling variants": (400, 700),
    "alias that is a subject": (450, 550),
    "alias, other department": (80, 110),
    "indication and adverse effect": (2_863, 2_863),
    "known to be wrong": (3, 3),
    "duplicate": (1, 1),
    "object is its subject": (0, 0),
    "subject without a type": (50, 130),
    "predicate of one subject": (237, 237),
    "code order": (50_835, 50_835),
}


def test_cmekg_has_the_dirt_that_was_read_in_it():
    found = counts(load_cmekg())
    wrong = {name: found.get(name) for name, (low, high) in CMEKG.items() if not low <= found.get(name, -1) <= high}
    assert not wrong
