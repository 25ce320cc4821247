"""The linker: leftmost-longest, lay wording, shorter names, negation; and its table of everyday expressions."""

import random

import pytest

from xinglin.errors import UserError
from xinglin.knowledge.graph import load_cmekg
from xinglin.knowledge.link import Linker, negations
from xinglin.knowledge.terms import normalize
from xinglin.knowledge.vocabulary import Term, read_lay_terms

GRAPH = load_cmekg()


@pytest.fixture(scope="module")
def linker():
    return Linker.from_graph(GRAPH)


def terms(*words):
    return {word: Term(word, "disease") for word in words}


def test_terms_are_found_leftmost_longest():
    linker = Linker(terms("肾炎", "肾上腺素", "恶心"), ["肾盂肾炎", "去甲肾上腺素"])
    assert linker.mentions("肾盂肾炎和去甲肾上腺素") == []
    assert linker.mentions("肾炎、恶 心、肾炎") == ["肾炎", "恶心"]


def test_matching_equals_a_plain_search():
    """Against a slow search that tries every place and every length, over random words and texts."""
    rng = random.Random(0)
    for _ in range(300):
        words = {"".join(rng.choices("甲乙丙", k=rng.randint(1, 5))) for _ in range(rng.randint(1, 12))}
        text = "".join(rng.choices("甲乙丙丁", k=60))
        plain, start = [], 0
        while start < len(text):
            fitting = [word for word in words if text.startswith(word, start)]
            word = max(fitting, key=len, default="")
            if word:
                plain.append((start, word))
            start += len(word) or 1
        assert [(one.start, one.text) for one in Linker(terms(*words)).find(text)] == plain


def test_places_are_those_of_the_normalised_text(linker):
    text = normalize("ＣＴ 示肺 炎，无发热。")
    for one in linker.find(text):
        assert text[one.start : one.end] == one.text
    assert [one.text for one in linker.find("ＣＴ示肺炎")] == ["CT", "肺炎"]
    assert "CT" not in [one.text for one in linker.find("ACTH升高")]


@pytest.mark.parametrize(
    ("text", "entities"),
    [
        ("老是拉肚子，还睡不着", ["腹泻", "失眠"]),
        ("发烧三天了", ["发热"]),
        ("想查个血糖", [None]),
        ("在吃阿托伐他汀", ["阿托伐他汀"]),
        ("是不是急性肾盂肾炎", ["急性肾盂肾炎"]),
        ("去甲肾上腺素", ["去甲肾上腺素"]),
        ("吃了感冒药就好了", []),
        ("这是个慢性病", []),
        ("请问医院几点上班", []),
    ],
)
def test_what_is_meant(linker, text, entities):
    found = linker.mentions(text)
    assert len(found) == len(entities)
    assert all(wanted in (one, None) for one, wanted in zip(found, entities, strict=True))


@pytest.mark.parametrize(
    ("text", "denied"),
    [
        ("没有发热", [True]),
        ("否认头痛、发热和咳嗽", [True, True, True]),
        ("无发热及咳嗽，有头痛", [True, True, False]),
        ("无渗血、头痛，体温正常", [True]),
        ("肺炎已排除", [True]),
        ("不支持肺炎，考虑哮喘", [True, False]),
        ("结核菌素试验阴性", [False]),
        ("有没有糖尿病", [False]),
        ("是不是肺炎", [False]),
        ("不停地咳嗽", [False]),
        ("不但咳嗽还发烧", [False, False]),
        ("不明原因发热", [False]),
        ("没多久就头晕", [False]),
        ("不能排除肺炎", [False]),
        ("无明显诱因出现胸痛", [False]),
        ("没有发烧但是咳嗽", [True, False]),
        ("肺不张伴咳嗽", [False, False]),
    ],
)
def test_negation_within_the_clause(linker, text, denied):
    found = linker.find(text)
    assert negations(normalize(text), found) == denied, found


def test_the_packaged_table_is_whole(linker):
    table = read_lay_terms()
    assert len(table) > 2_500
    assert not [text for text, (target, _) in table.items() if target not in linker.terms]
    whole = {text: target for text, (target, _) in table.items() if "*" not in text and text not in GRAPH}
    assert all(linker.entity(text) == linker.entity(target) for text, target in whole.items())


@pytest.mark.parametrize(
    ("text", "entities"),
    [
        ("肚子一阵一阵地疼", ["腹痛"]),
        ("头发一把一把地掉", ["脱发"]),
        ("饭一口都吃不下", ["食欲不振"]),
        ("肚子凉，腿疼", ["肢体疼痛"]),  # not across a comma
        ("肚子没有疼", []),
        ("肚子里面好像总是有一团什么东西在疼", []),  # too far apart
    ],
)
def test_expressions_with_something_between(linker, text, entities):
    assert linker.mentions(text) == entities


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("拉肚子 腹泻\n", "lay.tsv:1: expected two columns"),
        ("拉肚子\t腹泻\n\t腹泻\n", "lay.tsv:2: expected two columns"),
        ("拉肚子\t跑肚\n跑肚\t拉肚子\n", "lay.tsv:1: 拉肚子 → 跑肚 → 拉肚子; name the medical term at once"),
        ("腹泻\t腹泻\n", "lay.tsv:1: 腹泻 → 腹泻"),
        ("拉肚子\t没有这个词\n", "lay.tsv:1: '没有这个词' is not in the graph"),
    ],
)
def test_bad_tables_are_refused(tmp_path, content, message):
    path = tmp_path / "lay.tsv"
    path.write_text(content, "utf-8")
    with pytest.raises(UserError, match=message):
        Linker.from_graph(GRAPH, path)
    path.write_bytes("拉肚子\t腹泻".encode("gb18030"))
    with pytest.raises(UserError, match="not UTF-8"):
        read_lay_terms(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_lay_terms(tmp_path / "none.tsv")


def test_the_labelled_sentences_keep_their_figures(linker):
    """A floor under what benchmarks/linking/run.py reports; the sentences were labelled before the linker saw them."""
    import runpy
    from pathlib import Path

    bench = runpy.run_path(str(Path(__file__).parent.parent / "benchmarks" / "linking" / "run.py"))
    records = bench["load_sentences"]()
    assert len(records) == 240
    held = [bench["score"](record, linker)[0] for record in records if int(record["id"][1:]) % 2 == 0]
    total = sum(held, type(held[0])())
    assert total["found"] / total["labelled"] > 0.70
    assert total["right"] / total["returned"] > 0.85
