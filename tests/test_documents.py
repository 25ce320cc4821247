"""Own documents: cut under their headings, found by words, quoted with file and heading, without doses."""

import pytest

from xinglin.errors import UserError
from xinglin.inference.documents import Documents

GUIDE = """# 高血压管理
前言。

## 随访
血压达标的患者每三个月随访一次。未达标者每两到四周随访一次。

## 饮食
每天食盐不超过5克，少吃腌制食品，多吃蔬菜。

## 用药
氨氯地平每次5mg，每日一次。降压药要长期服用。
"""


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    folder = tmp_path_factory.mktemp("guides")
    (folder / "科室").mkdir()
    (folder / "科室" / "高血压.md").write_text(GUIDE, "utf-8")
    (folder / "痛风.txt").write_bytes(
        "痛风患者急性期要休息，抬高患肢，避免饮酒。\n痛风缓解期控制体重。\n".encode("gb18030")
    )
    (folder / "picture.png").write_bytes(b"\x89PNG\0")
    (folder / "empty.md").write_text("")
    return Documents(str(folder))


@pytest.mark.parametrize(
    ("question", "names", "cited", "says"),
    [
        ("高血压患者多久随访一次？", ["高血压"], "科室/高血压.md › 高血压管理 › 随访", "每三个月随访一次"),
        ("高血压饮食上要注意什么，食盐可以吃多少", ["高血压"], "科室/高血压.md › 高血压管理 › 饮食", "食盐不超过5克"),
        ("痛风急性期要怎么办", ["痛风"], "痛风.txt", "抬高患肢"),
    ],
)
def test_passages_are_found_and_cited(documents, question, names, cited, says):
    found = documents.find(question, names)
    assert found[0].cited == cited
    assert says in found[0].text


@pytest.mark.parametrize(
    ("question", "names"),
    [
        ("白内障手术后多久复查", ["白内障"]),
        ("随访一次", ["糖尿病"]),  # the words are there, the disease is not
        ("今天天气怎么样", []),
        ("", []),
        ("？？？", []),
    ],
)
def test_what_is_not_there_is_not_found(documents, question, names):
    assert documents.find(question, names) == []


def test_no_dose_is_quoted(documents):
    [found] = documents.find("高血压用药降压药要长期服用吗", ["高血压"])
    assert "mg" not in found.text
    assert "剂量从略" in found.text
    assert "长期服用" in found.text


def test_long_passages_are_cut_between_sentences(tmp_path):
    (tmp_path / "a.md").write_text("# 标题\n" + "".join(f"第{n}句话说明这一点。" for n in range(200)), "utf-8")
    passages = Documents(str(tmp_path)).passages
    assert len(passages) > 5
    assert all(one.heading == "标题" and one.text.endswith("。") and len(one.text) <= 300 for one in passages)
    assert "".join(one.text for one in passages).count("句话") == 200


def test_folders_without_text_are_refused(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        Documents(str(tmp_path / "none"))
    with pytest.raises(UserError, match="no text in it"):
        Documents(str(tmp_path))
    (tmp_path / "a.md").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"a\.md"):
        Documents(str(tmp_path))
