"""Sources: every format gives the same facts, every broken file one clear line with its place, nothing half-written."""

import json
import pickle
import tracemalloc
from collections import Counter

import pytest

from xinglin.errors import UserError
from xinglin.knowledge.commands import KgExport, KgImport, export_graph, import_graph
from xinglin.knowledge.graph import Graph, load_cmekg, open_graph
from xinglin.knowledge.sources import detect, read_predicate_map, read_source
from xinglin.records import Fact

NESTED = {"偏头痛": {"就诊科室": ["神经内科"], "常见症状": ["恶心", "畏光"]}, "头颅CT": {"所属分类": ["影像学检查"]}}
TRIPLES = [(s, p, o) for s, said in NESTED.items() for p, objects in said.items() for o in objects]
CSV = "head,relation,tail\n" + "".join(f"{','.join(triple)}\n" for triple in TRIPLES)
MEDICAL = {
    "_id": {"$oid": "5bb5"},
    "name": "甲病",
    "desc": "一段话。",
    "category": ["疾病百科", "儿科", "小儿内科"],
    "symptom": ["发热", "咳嗽"],
    "check": ["血常规"],
    "acompany": ["肺炎"],
    "cure_department": ["儿科", "小儿内科"],
    "cure_way": ["药物治疗"],
    "get_way": "飞沫传播",
    "get_prob": "0.1%",
    "easy_get": "儿童",
    "common_drug": ["某片"],
    "recommand_drug": ["某片", "某糖浆"],
    "drug_detail": ["某厂某片(某片)"],
}


def facts_of(path, **options):
    return list(read_source(path, **options))


def triples_of(path, **options):
    return [(one.subject, one.predicate, one.object) for one in read_source(path, **options)]


def write(tmp_path, content, name="source.txt"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


FORMATS = {
    "cmekg": pickle.dumps(NESTED, 0),
    "csv": CSV,
    "tsv": CSV.replace(",", "\t"),
    "jsonl": "\n".join(json.dumps(dict(zip(("subject", "predicate", "object"), t, strict=True))) for t in TRIPLES),
    "nested": json.dumps(NESTED, ensure_ascii=False, indent=1),
}


@pytest.mark.parametrize("fmt", FORMATS)
def test_every_format_is_told_by_content_and_gives_the_same_facts(tmp_path, fmt):
    path = write(tmp_path, FORMATS[fmt])
    assert detect(path) == fmt
    assert triples_of(path) == TRIPLES
    assert {one.source for one in read_source(path)} == {"source.txt"}
    assert {one.source for one in read_source(path, source="我院")} == {"我院"}
    assert triples_of(path, format=fmt) == TRIPLES


def test_pickles_of_later_protocols_and_nested_json_on_one_line(tmp_path):
    assert detect(write(tmp_path, pickle.dumps(NESTED, 4))) == "cmekg"
    path = write(tmp_path, '{"甲病": {"就诊科室": "内科", "别称": ["A", "B"], "空": null}, "甲病": {"治疗": ["休息"]}}')
    assert triples_of(path) == [
        ("甲病", "就诊科室", "内科"),
        ("甲病", "别称", "A"),
        ("甲病", "别称", "B"),
        ("甲病", "治疗", "休息"),
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16", "utf-16-le-bom", "utf-16-be-bom"])
@pytest.mark.parametrize("fmt", ["csv", "tsv", "jsonl", "nested"])
def test_encodings_are_found_out(tmp_path, fmt, encoding):
    text = FORMATS[fmt] if fmt in ("csv", "tsv", "nested") else FORMATS[fmt].encode().decode("unicode_escape")
    data = ("\ufeff" + text).encode(encoding[:9]) if encoding.endswith("bom") else text.encode(encoding)
    path = write(tmp_path, data)
    assert detect(path) == fmt
    assert triples_of(path) == TRIPLES


@pytest.mark.parametrize(
    "header",
    ["h,r,t", "Subject,Predicate,Object", "实体1,关系,实体2", "头实体,关系,尾实体", "\ufeffhead,relation,tail"],
)
def test_the_usual_headers(tmp_path, header):
    assert triples_of(write(tmp_path, f"{header}\n甲病,治疗,休息\n")) == [("甲病", "治疗", "休息")]


def test_columns_in_any_order_types_and_sources(tmp_path):
    path = write(tmp_path, "关系,尾实体,类型,头实体,来源,备注\n治疗,休息,疾病,甲病,书,x\n治疗,热敷,Herb,乙,,y\n")
    assert facts_of(path, source="默认") == [
        Fact("甲病", "disease", "治疗", "休息", "书"),
        Fact("乙", "herb", "治疗", "热敷", "默认"),
    ]


def test_a_table_without_header(tmp_path):
    assert triples_of(write(tmp_path, "甲病,治疗,休息\n")) == [("甲病", "治疗", "休息")]
    five = facts_of(write(tmp_path, "甲病,治疗,休息,疾病,疗法\n"))
    assert five == [Fact("甲病", "disease", "治疗", "休息", "source.txt")]
    with pytest.raises(UserError, match=r"source.txt:1: 4 columns and no header"):
        triples_of(write(tmp_path, "甲病,治疗,休息,x\n"))


def test_quoted_cells_keep_commas_quotes_and_line_ends(tmp_path):
    path = write(tmp_path, 'head,relation,tail\r\n甲病,治疗,"休息,""多""\n饮水"\r\n')
    assert triples_of(path) == [("甲病", "治疗", '休息,"多"\n饮水')]


def test_medical_json(tmp_path, caplog):
    lines = [MEDICAL, {"name": "乙病", "get_way": "无传染性", "symptom": [], "new_key": 1}]
    path = write(tmp_path, "\n".join(json.dumps(one, ensure_ascii=False) for one in lines), "medical.json")
    assert detect(path) == "medical"
    facts = facts_of(path)
    assert {one.subject_type for one in facts} == {"disease"}
    found = Graph.from_facts(facts, {}).get("甲病").facts
    assert found["就诊科室"] == ["小儿内科"]
    assert found["常见症状"] == ["发热", "咳嗽"]
    assert found["药物治疗"] == ["某片", "某糖浆"]
    assert found["分类"] == ["儿科", "小儿内科"]
    assert found["传播途径"] == ["飞沫传播"]
    assert "0.1%" not in str(found)
    assert "某厂" not in str(found)
    assert [(one.predicate, one.object) for one in facts if one.subject == "乙病"] == [("传染性", "无")]
    assert "medical.json:2: the key 'new_key' is not known" in caplog.text


def test_relations_are_renamed(tmp_path):
    path = write(tmp_path, CSV)
    found = Counter(one.predicate for one in read_source(path, predicate_map={"常见症状": "症状"}))
    assert found == {"就诊科室": 1, "症状": 2, "所属分类": 1}
    with pytest.raises(UserError, match="no relation '常见症壮' to map in it; the nearest are 常见症状"):
        facts_of(path, predicate_map={"常见症壮": "症状"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: b\nb: a\n", "a → b → a leads in a circle"),
        ("x: a\na: b\nb: c\nc: a\n", "a → b → c → a leads in a circle"),
        ("a: a\n", "a → a leads in a circle"),
        ("a: b\nb: c\n", "a → b → c; name the last one at once"),
        ("- a\n- b\n", "not a flat mapping"),
        ("a: {b: c}\n", "not a flat mapping"),
        ("a: ''\n", "not a flat mapping"),
        ("是: 1\n", "not a flat mapping"),
        ("a: [\n", "not YAML"),
        ("", "not a flat mapping"),
    ],
)
def test_a_bad_predicate_map(tmp_path, text, message):
    path = write(tmp_path, text, "map.yaml")
    with pytest.raises(UserError, match="map.yaml: ") as caught:
        read_predicate_map(path)
    assert message in str(caught.value)


def test_a_good_predicate_map(tmp_path):
    assert read_predicate_map(write(tmp_path, "症状: 常见症状\n科室: 就诊科室\n")) == {
        "症状": "常见症状",
        "科室": "就诊科室",
    }
    with pytest.raises(UserError, match="cannot be read"):
        read_predicate_map(tmp_path / "none.yaml")


def test_incomplete_rows_are_left_out_and_counted(tmp_path, caplog):
    path = write(tmp_path, "head,relation,tail\n甲病,治疗,休息\n,治疗,休息\n甲病,治疗, \n甲病,,休息\n")
    assert triples_of(path) == [("甲病", "治疗", "休息")]
    assert caplog.messages == [f"{path}:3: a row without head, relation or tail was left out, with 2 more"]
    with pytest.raises(UserError, match="the graph is empty"):
        facts_of(write(tmp_path, "head,relation,tail\n,治疗,休息\n"))


BAD = {
    "empty file": (b"", "the graph is empty"),
    "blank file": (b"\n \n", "the graph is empty"),
    "header only": ("head,relation,tail\n", "the graph is empty"),
    "empty nested": ("{}", "the graph is empty"),
    "too few fields": ("head,relation,tail\n甲,治疗,休息\n甲,治疗\n", ":3: has 2 fields, the first row 3"),
    "too many fields": ("head,relation,tail\n甲,治疗,休息,饮水\n", ":2: has 4 fields, the first row 3"),
    "open quote": ('head,relation,tail\n甲,治疗,"休息\n乙,治疗,休息\n', ":2: not a valid table (a quote that opens"),
    "text after quote": ('head,relation,tail\n甲,治疗,"休"息\n', ":2: not a valid table (text after a closing quote"),
    "no tail column": ("head,relation,x\n甲,治疗,休息\n", ":1: no tail in head, relation, x"),
    "NUL": (b"head,relation,tail\na,b,c\nd,\0,f\n", ":3: holds NUL bytes"),
    "UTF-16 without its mark": (CSV.encode("utf-16-le"), ":1: holds NUL bytes"),
    "broken UTF-8": (CSV.encode() + b"\xff\xfe,b,c\n", ":6: not UTF-8"),
    "no encoding": (b"head,relation,tail\na,b,c\n\xff\xff\xff,b,c\n", ":3: neither UTF-8 nor GB18030"),
    "cut-off UTF-16": (CSV.encode("utf-16")[:-1], ":5: damaged UTF-16"),
    "broken UTF-16": (("\ufeff" + CSV).encode("utf-16-be") + b"\xdc\x00\x00a", ":6: damaged UTF-16"),
    "broken JSON Lines": ('{"head": "a", "relation": "b", "tail": "c"}\n{"head": "a",}\n', ":2:14: not valid JSON"),
    "broken nested": ('{\n "a": {"b": ["c"]},\n "d": }\n', ":3:7: not valid JSON"),
    "deep nesting": ('{"a": ' + "[" * 100_000, ":1: not valid JSON (nested too deeply"),
    "list in JSON Lines": ('{"head": "a", "relation": "b", "tail": "c"}\n[1]\n', ":2: expected a JSON object"),
    "no tail key": ('{"head": "a", "relation": "b", "tail": "c"}\n{"head": "a"}\n', ":2: no relation in head"),
    "object for a text": ('{"head": "a", "relation": "b", "tail": {"c": 1}}\n', ":1: 'tail' must be text"),
    "truth for a text": ('{"head": true, "relation": "b", "tail": "c"}\n', ":1: 'head' must be text"),
    "two heads": ('{"head": ["a", "b"], "relation": "b", "tail": "c"}\n', ":1: 'head' must be one text"),
    "half a character": ('{"head": "a\\ud83d", "relation": "b", "tail": "c"}\n', ":1: half a character"),
    "unknown keys": ('{"a": 1, "b": 2}\n', "records with the keys ['a', 'b']"),
    "JSON list": ('[{"head": "a", "relation": "b", "tail": "c"}]', "is a JSON list"),
    "nested too deep": ('{"a": {"b": {"c": "d"}}}', "'a', 'b' must be text or a list of texts"),
    "subject without predicates": ('{"a": {"b": "c"},\n "d": "e"}', "the subject 'd' needs"),
    "one of the subjects": (
        '{"a": {"b": ["c"]}, "d": "e", "f": {"b": ["c"]}}',
        "the subject 'd' needs {predicate: [obj",
    ),
    "one column": ("abc\n", "neither a table nor JSON"),
    "Parquet": (b"PAR1xxxx", "is Parquet: a graph"),
    "spreadsheet": (b"PK\x03\x04xxxx", "is a spreadsheet"),
    "gzip": (b"\x1f\x8b\x08\x00", "is compressed"),
    "pickle with code": (pickle.dumps({"a": Counter()}, 2), "refused, not a plain cMeKG file"),
    "pickle of numbers": (pickle.dumps({"a": {"b": [1]}}, 0), "not a graph of the form"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_give_one_clear_line_and_leave_nothing(tmp_path, case):
    content, message = BAD[case]
    path = write(tmp_path, content)
    output = tmp_path / "out" / "graph.parquet"
    with pytest.raises(UserError) as caught:
        import_graph(KgImport(str(path), str(output)))
    text = str(caught.value)
    assert text.startswith(str(path))
    assert message in text
    assert "\n" not in text
    assert not output.exists()
    assert not list(tmp_path.glob("out/.*"))


def test_what_is_no_file(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        facts_of(tmp_path / "none.csv")
    with pytest.raises(UserError, match="is a folder or a pipe"):
        facts_of(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030"])
def test_an_endless_line_is_refused_before_memory_runs_out(tmp_path, encoding):
    path = tmp_path / "long.csv"
    with path.open("wb") as file:
        file.write("head,relation,tail\n甲,乙,".encode(encoding))
        for _ in range(80):
            file.write(b"x" * (1 << 20))
    tracemalloc.start()
    with pytest.raises(UserError, match="long.csv: line 2 is longer than 64 MB"):
        facts_of(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150 << 20


@pytest.mark.parametrize("fmt", ["csv", "tsv", "jsonl", "nested"])
def test_export_then_import_gives_the_same_facts(tmp_path, fmt, capsys):
    odd = ['"引号"', "逗号,和\t制表", "两\n行", "回\r车", "’", "\xa0不断行", "😀", "[1]", "=1+1"]
    facts = [Fact("甲病", "disease", "治疗", text, "书") for text in odd] + [Fact("乙", "herb", "功效", "清热", "网")]
    Graph.from_facts(facts, {"书": "CC-BY", "网": "?"}).save(tmp_path / "a.parquet")
    path = tmp_path / f"a.{fmt}"
    export_graph(KgExport(str(path), str(tmp_path / "a.parquet"), fmt))
    import_graph(KgImport(str(path), str(tmp_path / "b.parquet"), licence="CC-BY", source="书"))
    assert "10 facts of 2 subjects" in capsys.readouterr().out
    first, second = (list(open_graph(str(tmp_path / f"{name}.parquet"))) for name in "ab")
    if fmt == "nested":
        first, second = ([(one.subject, one.predicate, one.object) for one in facts] for facts in (first, second))
    assert second == first
    with pytest.raises(UserError, match="exists; name another"):
        export_graph(KgExport(str(path), str(tmp_path / "a.parquet"), fmt))


def test_import_prints_counts_by_type_and_keeps_what_is_there(tmp_path, capsys):
    path, output = write(tmp_path, CSV), tmp_path / "graph.parquet"
    import_graph(KgImport(str(path), str(output), source="我院", licence="internal"))
    printed = capsys.readouterr().out
    assert "我院（internal）" in printed
    assert "subjects 2   predicates 3   triples 4" in printed
    assert "1  disease" in printed
    assert "1  examination" in printed
    assert open_graph(str(output)).licences == {"我院": "internal"}
    before = output.read_bytes()
    with pytest.raises(UserError, match="exists"):
        import_graph(KgImport(str(path), str(output)))
    with pytest.raises(UserError, match="the graph is empty"):
        import_graph(KgImport(str(write(tmp_path, b"", "empty")), str(output), overwrite=True))
    assert output.read_bytes() == before
    with pytest.raises(UserError, match="is a folder"):
        import_graph(KgImport(str(path), str(tmp_path), overwrite=True))


def test_the_whole_cmekg_through_nested_json_and_back(tmp_path, capsys):
    graph = load_cmekg()
    path = tmp_path / "cmekg.json"
    export_graph(KgExport(str(path), format="nested"))
    back = Counter(one.predicate for one in read_source(path))
    there = Counter({name: count for name, _, count in graph.predicates()})
    assert there.total() == 967_409
    assert there - back == {"功能主治": 1}  # one object is empty in the source
    assert not back - there
