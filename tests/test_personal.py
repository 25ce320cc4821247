import json
from collections import Counter
from pathlib import Path

import pytest

from xinglin.dataset.quality.personal import LABELS, find, mask

LINES = [json.loads(line) for line in (Path(__file__).parent / "data" / "personal_lines.jsonl").open(encoding="utf-8")]


def kinds(text):
    return {hit.kind for hit in find(text)}


def test_labelled_lines_are_found_and_others_left_alone():
    personal = [line for line in LINES if line["kinds"]]
    others = [line for line in LINES if not line["kinds"]]
    assert len(personal) >= 100 and len(others) >= 100
    found = [line for line in personal if kinds(line["text"]) & set(line["kinds"])]
    wrong = [line for line in others if find(line["text"])]
    named, caught = Counter(), Counter()
    for line in personal:
        named.update(line["kinds"])
        caught.update(set(line["kinds"]) & kinds(line["text"]))
    print({kind: f"{caught[kind]}/{named[kind]}" for kind in named})
    assert len(found) / len(personal) >= 0.95
    assert len(wrong) / len(others) <= 0.10
    assert all(caught[kind] / named[kind] >= 0.85 for kind in LABELS)


def test_masks_leave_nothing_to_find():
    for line in LINES:
        masked = mask(line["text"])
        assert not find(masked), masked
        assert mask(masked) == masked


@pytest.mark.parametrize(
    ("text", "kind", "piece"),
    [
        ("患者王建国，男，56岁", "name", "王建国"),
        ("姓名：阿依古丽·买买提 女", "name", "阿依古丽·买买提"),
        ("欧阳明月 女 33岁", "name", "欧阳明月"),
        ("手机１３８００１３８０００", "phone", "１３８００１３８０００"),
        ("座机 0571-88012345", "phone", "0571-88012345"),
        ("加我薇信 doctor_li88", "wechat", "doctor_li88"),
        ("QQ：123456789", "wechat", "123456789"),
        ("住院号为ZY0012345", "record_number", "ZY0012345"),
        ("身份证11010519491231002X", "id_number", "11010519491231002X"),
        ("邮箱 a.b@example.com", "email", "a.b@example.com"),
        ("家住四川省绵阳市解放村3组", "address", "四川省绵阳市解放村3组"),
    ],
)
def test_a_kind_is_found_at_its_place(text, kind, piece):
    (hit,) = find(text)
    assert (hit.kind, hit.text) == (kind, piece)
    assert text[hit.start : hit.end] == piece


@pytest.mark.parametrize(
    "text",
    [
        "患者张力性气胸，男，45岁",
        "病史10年，体温38.5℃，血压150/90mmHg",
        "王不留行10克，黄芪30克",
        "患者黄疸3天",
        "我妈妈高血压，怎么办",
        "国药准字Z20025412",
        "白细胞计数13800000000/L",
        "输注红细胞2单位",
        "住在农村，去市区看病",
        "患者应慎用，时根据医生的意见调整",
        "张某，男，45岁；李女士",
        "关注微信公众号",
    ],
)
def test_medical_words_are_no_personal_data(text):
    assert find(text) == []


def test_masking_keeps_the_rest():
    assert mask("患者王建国，男，电话13800138000。") == "患者〔姓名〕，男，电话〔电话〕。"
