"""Triage: red flags come first, denial and history are heard, drug questions are turned away; the rules are whole."""

import pytest

from xinglin.inference import triage as module
from xinglin.inference.triage import triage


@pytest.mark.parametrize(
    ("text", "group"),
    [
        ("我爸刚才胸口压得慌，一身冷汗，半个小时了", "cardiac"),
        ("妈妈突然嘴歪了，右手拿不住筷子", "stroke"),
        ("打完头孢十分钟全身起疹子，喉咙发紧喘不上气", "anaphylaxis"),
        ("孩子吃果冻卡住了，脸都紫了", "airway"),
        ("吐了一大盆血", "bleeding"),
        ("孩子误喝了敌敌畏", "poisoning"),
        ("宝宝才28天，发烧38度5", "infant_fever"),
    ],
)
def test_emergencies_are_named(text, group):
    alert = triage(text)
    assert alert.kind == "emergency"
    assert alert.group == group
    assert "120" in alert.text


@pytest.mark.parametrize("text", ["不想活了", "我把药都攒好了，吃下去是不是就不痛苦了", "弟弟说要跳楼，还写了遗书"])
def test_a_crisis_of_the_mind_gets_its_line(text):
    alert = triage(text)
    assert alert.kind == "crisis"
    assert "12356" in alert.text
    assert "120" in alert.text


@pytest.mark.parametrize(
    "text",
    [
        "我没有胸痛，就是想问心电图写的窦性心律是什么意思",
        "三年前胸痛住过院，现在好了，能去爬山吗",
        "什么是中风？",
        "心肌梗死有哪些症状？",
        "今天加班累死了",
        "笑死我了这个视频",
        "刷牙的时候牙龈有点出血",
        "流鼻血，捏了五分钟停了",
        "你好",
        "谢谢，再见",
        "",
        "？？？",
        "How are you today?",
    ],
)
def test_the_harmless_is_left_alone(text):
    alert = triage(text)
    assert alert is None or not alert.urgent


@pytest.mark.parametrize("text", ["布洛芬一次吃几片？", "帮我开点头孢", "降压药能不能停", "怀孕了能吃感冒药吗"])
def test_drug_questions_are_turned_away_with_a_reason(text):
    alert = triage(text)
    assert alert.kind == "medication"
    assert not alert.urgent
    assert "医生或药师" in alert.text


def test_a_denied_sign_does_not_hide_another():
    assert triage("没有胸痛，也不发烧，就是突然左边身子不听使唤，话也说不清").group == "stroke"


def test_every_rule_has_a_reason_and_a_source_and_compiles():
    rules = module._rules()
    assert len(rules.flags) > 50
    assert all(flag.reason and flag.source and flag.every for flag in rules.flags)
    assert all(one.reason for one in rules.requests)
    names = [flag.name for flag in rules.flags]
    assert len(set(names)) == len(names)
    groups = {"cardiac", "stroke", "anaphylaxis", "airway", "bleeding", "suicide", "poisoning"}
    assert groups < {flag.group for flag in rules.flags}


def test_long_and_odd_messages_are_read():
    assert triage("我想问一下。" * 10_000 + "我爸突然嘴歪了，右手没力气，说不清话").urgent
    assert triage("\x00\x07​我爸突然嘴歪了，右手没力气") is not None
    assert triage("好" * 100_000) is None
