"""Knowledge: nothing runs when a graph is read, subjects are typed, terms are found whole."""

import os
import pickle

import pytest

from xinglin.errors import UserError
from xinglin.knowledge.graph import Graph, open_graph, subject_type
from xinglin.knowledge.policy import excluded
from xinglin.knowledge.sources import read_cmekg
from xinglin.knowledge.terms import normalize
from xinglin.records import Fact

TRIPLES = {
    "偏头痛": {"就诊科室": ["神经内科"], "临床症状及体征": ["恶心", "畏光"]},
    "布洛芬片": {"适应症": ["疼痛"], "相关疾病": ["偏头痛"]},
    "头颅CT": {"相关症状": ["头痛"], "相关疾病": ["脑出血"]},
}


class Evil:
    def __reduce__(self):
        return (os.system, ("touch pwned",))


@pytest.mark.parametrize("content", [pickle.dumps(Evil()), pickle.dumps({"a": Evil()}, 0), b"", b"garbage"])
def test_a_pickle_that_is_not_plain_is_refused(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "g.pkl").write_bytes(content)
    with pytest.raises(UserError, match="refused"):
        read_cmekg("g.pkl", "test")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("content", [[1], {"a": 1}, {"a": {"b": "c"}}, {1: {"b": ["c"]}}, {"a": {"b": [1]}}])
def test_another_structure_is_refused(tmp_path, content):
    (tmp_path / "g.pkl").write_bytes(pickle.dumps(content, 0))
    with pytest.raises(UserError, match="not a graph"):
        read_cmekg(tmp_path / "g.pkl", "test")


def facts_of(triples, source="test"):
    return [Fact(s, "", p, o, source) for s, said in triples.items() for p, objects in said.items() for o in objects]


def test_graph_survives_parquet_and_answers(tmp_path):
    (tmp_path / "g.pkl").write_bytes(pickle.dumps(TRIPLES, 0))
    facts = list(read_cmekg(tmp_path / "g.pkl", "test"))
    assert facts == facts_of(TRIPLES)
    Graph.from_facts(facts, {"test": "none"}).save(tmp_path / "g.parquet")
    graph = open_graph(str(tmp_path / "g.parquet"))
    assert len(graph) == 3
    assert graph.licences == {"test": "none"}
    assert "偏头痛" in graph
    assert graph.get("偏头痛").facts == TRIPLES["偏头痛"]
    assert [fact.object for fact in graph if fact.subject == "偏头痛"] == ["神经内科", "恶心", "畏光"]
    assert [fact.subject for fact in graph.select(["相关疾病"])] == ["头颅CT", "布洛芬片"]
    assert [one.name for one in graph.of_type("disease")] == ["偏头痛"]
    assert graph.types() == {"disease": 1, "drug": 1, "examination": 1}
    assert ("相关疾病", 2, 2) in graph.predicates()
    codes, names = graph.column("subject")
    assert [names[code] for code in codes] == [fact.subject for fact in graph]
    with pytest.raises(UserError, match="no subject '偏头疼'; did you mean '偏头痛'"):
        graph.get("偏头疼")


def test_several_graphs_are_one_and_each_fact_keeps_its_source(tmp_path):
    for name, triples in {"a": TRIPLES, "b": {"偏头痛": {"就诊科室": ["神经内科"], "预防": ["规律作息"]}}}.items():
        Graph.from_facts(facts_of(triples, name), {name: f"terms of {name}"}).save(tmp_path / f"{name}.parquet")
    graph = open_graph(f"{tmp_path / 'a.parquet'}, {tmp_path / 'b.parquet'}")
    assert graph.source == "a、b"
    assert graph.licence == "terms of a; terms of b"
    assert [fact.source for fact in graph if fact.object == "神经内科"] == ["a", "b"]
    assert graph.get("偏头痛").facts == TRIPLES["偏头痛"] | {"预防": ["规律作息"]}


def test_a_type_that_one_graph_does_not_know_comes_from_the_other():
    unknown = Graph.from_facts([Fact("偏头痛", "", "说明", "x", "a")], {"a": ""})
    assert unknown.types() == {"other": 1}
    assert Graph.merge([unknown, Graph.from_facts(facts_of(TRIPLES), {})]).get("偏头痛").type == "disease"


@pytest.mark.parametrize(
    ("name", "message"), [("none.parquet", "no such file"), ("", "no graph named"), (" , ", "no graph")]
)
def test_a_graph_that_is_not_there(name, message):
    with pytest.raises(UserError, match=message):
        open_graph(name)


def test_a_file_that_is_no_graph(tmp_path):
    (tmp_path / "g.parquet").write_bytes(b"PAR1 but nothing else")
    with pytest.raises(UserError, match="not a graph written by"):
        open_graph(str(tmp_path / "g.parquet"))
    with pytest.raises(UserError, match="holds no facts"):
        Graph.from_facts([], {})


@pytest.mark.parametrize(
    ("predicates", "kind"),
    [
        (["性味", "功效"], "herb"),
        (["组成", "功用"], "formula"),
        (["OTC类型", "相关疾病"], "drug"),
        (["诊断依据_症状"], "disease"),
        (["所属分类"], "examination"),
        (["英文名称"], "other"),
    ],
)
def test_types_are_told_by_predicates(predicates, kind):
    assert subject_type(predicates) == kind


def test_normalisation_folds_width_dashes_and_spaces():
    assert normalize("Ａ—型 肝炎（１）") == "A-型肝炎(1)"
    assert normalize("T cell 淋巴瘤") == "T cell淋巴瘤"


def test_policy_gives_its_reason():
    assert "self-harm" in excluded("有自杀倾向")
    assert "dose" in excluded("口服500mg")
    assert excluded("恶心") is None
