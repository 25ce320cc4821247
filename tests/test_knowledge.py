"""Knowledge: nothing runs when a graph is read, subjects are typed, terms are found whole."""

import os
import pickle

import pytest

from xinglin.errors import UserError
from xinglin.knowledge.graph import Graph, subject_type
from xinglin.knowledge.link import Linker, normalize
from xinglin.knowledge.policy import excluded
from xinglin.knowledge.sources import read_cmekg

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
        read_cmekg("g.pkl")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("content", [[1], {"a": 1}, {"a": {"b": "c"}}, {1: {"b": ["c"]}}])
def test_another_structure_is_refused(tmp_path, content):
    (tmp_path / "g.pkl").write_bytes(pickle.dumps(content, 0))
    with pytest.raises(UserError, match="not a graph"):
        read_cmekg(tmp_path / "g.pkl")


def test_graph_survives_parquet_and_answers(tmp_path):
    import pyarrow.parquet as pq

    source = tmp_path / "g.pkl"
    source.write_bytes(pickle.dumps(TRIPLES, 0))
    Graph.from_triples(read_cmekg(source)).save(tmp_path / "g.parquet")
    graph = Graph(pq.read_table(tmp_path / "g.parquet"), "test")
    assert len(graph) == 3
    assert graph.get("偏头痛").facts == TRIPLES["偏头痛"]
    assert [fact.object for fact in graph.facts("偏头痛")] == ["神经内科", "恶心", "畏光"]
    assert [one.name for one in graph.of_type("disease")] == ["偏头痛"]
    assert graph.types() == {"disease": 1, "drug": 1, "examination": 1}
    assert ("相关疾病", 2, 2) in graph.predicates()
    with pytest.raises(UserError, match="no subject '偏头疼'; did you mean '偏头痛'"):
        graph.get("偏头疼")


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


def test_terms_are_found_leftmost_longest():
    linker = Linker(["肾炎", "肾上腺素", "恶心"], ["肾盂肾炎", "去甲肾上腺素"])
    assert linker.mentions("肾盂肾炎和去甲肾上腺素") == []
    assert linker.mentions("肾炎、恶 心、肾炎") == ["肾炎", "恶心"]


def test_normalisation_folds_width_dashes_and_spaces():
    assert normalize("Ａ—型 肝炎（１）") == "A-型肝炎(1)"
    assert normalize("T cell 淋巴瘤") == "T cell淋巴瘤"


def test_policy_gives_its_reason():
    assert "self-harm" in excluded("有自杀倾向")
    assert "dose" in excluded("口服500mg")
    assert excluded("恶心") is None
