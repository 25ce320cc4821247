import json
import random
from pathlib import Path

import numpy as np
import pytest

from xinglin.dataset import formats
from xinglin.dataset.quality import check as quality
from xinglin.dataset.quality import duplicates
from xinglin.dataset.quality.check import DataCheck, check, check_data
from xinglin.dataset.quality.detect import RULES, Texts, advice, language
from xinglin.dataset.quality.fix import mask_beside
from xinglin.dataset.quality.groups import Columns, disagreement, repeated_answers
from xinglin.dataset.quality.personal import LABELS
from xinglin.dataset.quality.repair import cleaned, repaired
from xinglin.errors import UserError
from xinglin.records import Example, Turn, read_json_records, write_jsonl

SHARED = Path(__file__).parents[2] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the real sample files are not here")

GOOD_ANSWER = "偏头痛常见症状有畏光、恶心。"


def texts(question="偏头痛怎么治疗？", answer=GOOD_ANSWER, context=""):
    return Texts(question, context, question, answer)


def write(path, records):
    lines = [{"instruction": question, "input": "", "output": answer} for question, answer in records]
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), "utf-8")
    return path


def findings(path, **options):
    contents = check(DataCheck(str(path), **options))
    return contents, {one["name"]: one["records"] for one in contents["findings"] if one["records"]}


@pytest.mark.parametrize(
    ("rule", "case"),
    [
        ("contextless", texts("这两种疾病的病因有何不同？")),
        ("contextless", texts("请问该病如何治疗？")),
        ("contextless", texts("以上两个疾病的病因有何不同？")),
        ("contextless", texts("两个知识的病原有何不同？")),
        ("contextless", texts("治疗方案的区别在于何处？")),
        ("contextless", texts("王先生需要做哪些术前准备?")),
        ("contextless", texts("怎么办")),
        ("null_value", texts("一名NaN岁女性出现腹痛，请问如何治疗？")),
        ("null_value", texts(answer="None")),
        ("prompt_leak", texts(answer="根据上述知识，该患者可能患有肥厚型心肌病。")),
        ("prompt_leak", texts(answer="根据中心词'睡眠障碍'，小芳可能患有睡眠障碍。")),
        ("prompt_leak", texts(answer="作为一个AI语言模型，我不能看病。")),
        ("damaged", texts(answer="建议服用\ufffd\ufffd片")),
        ("damaged", texts(answer="锟斤拷锟斤拷")),
        ("damaged", texts(answer="ä¸å½åŒ»é™¢")),
        ("damaged", texts(answer="血压\ue5d2升高")),
        ("html", texts(answer="<p>多休息</p>")),
        ("html", texts(answer="血压&lt;140")),
        ("loop", texts(answer="注意休息，多喝水，多喝水，" + "注意休息多饮水" * 5)),
        ("brackets", texts(answer="可用药物（如阿司匹林治疗。")),
        ("cut_end", texts(answer="建议到神经内科就诊，进行头颅磁共振检查以排除")),
        ("english_answer", texts(answer="Migraine is a common neurological disorder.")),
        ("traditional", texts(answer="這種藥會對腎臟產生影響，應該諮詢醫師。")),
        ("dose", texts(answer="布洛芬每次0.3g，每日两次。")),
        ("dose", texts(answer="口服维生素K 20mg预防。")),
        ("dose", texts(answer="阿司匹林1片。")),
        ("dose", texts(answer="饭后服用，一日三次。")),
        ("dose", texts(answer="黄芪30克、当归10克，水煎。")),
    ],
)
def test_a_defect_is_seen(rule, case):
    assert RULES[rule].test(case)


@pytest.mark.parametrize(
    ("rule", "case"),
    [
        ("contextless", texts("一名患者确诊转移性肝癌，请问这种疾病的发病部位是什么？")),
        ("contextless", texts("这两种疾病的病因有何不同？", context="肺炎：细菌。肺结核：结核杆菌。")),
        ("contextless", texts("这位患者出现了血尿和明显的酸中毒症状，肾功能异常，尿液pH值较高，可能是什么病？")),
        ("contextless", texts("痔怎么治疗？")),
        ("contextless", texts("儿童哮喘和百日咳有何区别？")),
        ("null_value", texts("室间隔缺损（NanoCor）与 Naning 有关吗？")),
        ("null_value", texts(answer="None of these applies.")),
        ("prompt_leak", texts(answer="了解疾病的基本知识并采取预防措施。")),
        ("prompt_leak", texts(answer="根据您提供的情况，建议到医院检查。")),
        ("damaged", texts(answer="Ménière病与Guillain-Barré综合征不同。")),
        ("html", texts(answer="血压<140且心率>60。")),
        ("loop", texts(answer="是的是的，可以。———————————————————")),
        ("brackets", texts(answer="1）休息；2）饮水；3）复诊。")),
        ("brackets", texts(answer="可用药物（如阿司匹林)治疗。")),
        ("cut_end", texts(answer="不会传染")),
        ("cut_end", texts(answer="可到神经内科就诊（周一至周五）")),
        ("english_answer", texts(answer="CT、MRI、EEG、PET-CT 等检查可以明确。")),
        ("traditional", texts(answer="应该及时就医，后续复查。")),
        ("dose", texts(answer="血压150/90mmHg，血糖7.8mmol/L，白蛋白30g/L，PSA 10ng/ml。")),
        ("dose", texts(answer="每天食盐不超过6克，每天运动2次。")),
    ],
)
def test_what_is_right_is_left_alone(rule, case):
    assert RULES[rule].test(case) == ""


def test_advice_and_language():
    for answer in ("建议到神经内科就诊。", "请咨询医生。", "不用紧张，请咨询医生。", "不用去医院，加重时再就医。"):
        assert advice(texts(answer=answer))
    for answer in ("多喝水。", "不用就医。", "不需要看医生。", "没必要去医院。", "无需立即就诊。", "不必找医生。"):
        assert not advice(texts(answer=answer)), answer
    assert [language(text) for text in ("头痛", "headache", "头痛 headache", "…")] == [
        "chinese",
        "english",
        "mixed",
        "none",
    ]


def misread(text, encoding):
    """What comes of bytes read as Windows-1252."""
    return "".join(bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in text.encode(encoding))


def test_repairs():
    assert repaired("<p>血压&lt;１４０</p>") == "血压<140"
    assert repaired("10<sup>9</sup>/L<br/>正常") == "10^9/L\n正常"
    assert repaired(misread("糖尿病怎么办", "utf-8")) == "糖尿病怎么办"
    assert repaired(misread("中国医院", "gbk")) == "中国医院"
    assert repaired("正常的“引号”……和—Ménière病") == "正常的“引号”……和—Ménière病"
    assert cleaned("&amp;lt;电话13800138000") == "<电话〔电话〕"


def shingles(text):
    return {text[n : n + duplicates.PIECE] for n in range(len(text) - duplicates.PIECE + 1)}


def jaccard(one, other):
    return len(one & other) / len(one | other)


def varied(count, seed=0):
    """Texts with every degree of likeness: each second one is a changed copy of the one before."""
    order = random.Random(seed)
    letters = [chr(0x4E00 + n) for n in range(2000)]
    made = []
    for _ in range(count // 2):
        text = [order.choice(letters) for _ in range(order.randrange(60, 200))]
        made.append("".join(text))
        for _ in range(order.randrange(12)):
            text[order.randrange(len(text))] = order.choice(letters)
        made.append("".join(text))
    return made


def test_near_duplicates_against_brute_force():
    made = varied(400)
    with duplicates.Index() as index:
        index.add(duplicates.signatures(made[:150]))
        index.add(duplicates.signatures(made[150:]))
        folder = Path(index._folder.name)
        labels = index.clusters(np.arange(len(made)))
        assert folder.is_dir()
    assert not folder.exists()
    sets = [shingles(text) for text in made]
    degrees = [0, 0]
    for one in range(len(made)):
        for other in range(one):
            likeness = jaccard(sets[one], sets[other])
            if likeness >= 0.9:
                assert labels[one] == labels[other]
                degrees[0] += 1
            elif likeness < 0.65:
                assert labels[one] != labels[other]
            elif likeness < 0.9:
                degrees[1] += 1
    assert min(degrees) >= 20


def test_temporary_files_go_when_something_fails():
    with pytest.raises(RuntimeError), duplicates.Index() as index:
        folder = Path(index._folder.name)
        raise RuntimeError
    assert not folder.exists()


def test_pieces_are_those_of_each_text():
    made = ["甲乙丙丁戊己庚", "短", "甲乙丙丁戊"]
    hashes, starts = duplicates.pieces(made, 5)
    assert starts.tolist() == [0, 3, 4, 5]
    assert hashes[0] == hashes[4] and len(set(hashes.tolist())) == 4


def test_copies_and_disagreements(tmp_path):
    path = write(
        tmp_path / "data.jsonl",
        [
            ("肺炎会传染吗？", "会传染，注意隔离。"),
            ("肺炎会传染吗", "会传染，注意隔离"),
            ("肺炎会传染吗？", "不会传染，不必担心。"),
            ("偏头痛挂哪个科？", "建议到神经内科就诊。"),
            ("偏头痛挂哪个科？", "建议到妇产科就诊。"),
            ("水痘的潜伏期多长？", "水痘的潜伏期约为14天。"),
            ("水痘的潜伏期多长？", "水痘的潜伏期约为21天。"),
            ("感冒怎么办？", "多喝水，注意休息，必要时就医。"),
            ("发热怎么办？", "多喝水，注意休息，必要时就医。"),
            ("咳嗽怎么办？", "可以先化痰，再查原因。"),
            ("咳嗽怎么办？", "保持室内湿度，避免烟尘。"),
        ],
    )
    contents, found = findings(path)
    assert found["exact_duplicates"] == 1
    assert found["contradictory"] == 3
    assert found["different_answers"] == 4
    assert found["repeated_answers"] == 1
    copies = next(one for one in contents["findings"] if one["name"] == "exact_duplicates")
    assert copies["examples"][0]["where"] == f"{path}:1；{path}:2"


def compared(question, *answers):
    columns = Columns()
    for answer in answers:
        columns.add(texts(question, answer))
    return disagreement(columns)


@pytest.mark.parametrize("answer", ["不一定，看情况。", "无需担心。", "不清楚。", "不好说。"])
def test_an_open_answer_is_neither_yes_nor_no(answer):
    assert compared("水痘会传染吗？", "会传染。", answer).contradictory == 0
    assert compared("水痘会传染吗？", "会传染。", answer, "不会。").contradictory == 2


def test_every_two_answers_are_compared():
    first = "看内科要先挂普外科或消化科。"  # agrees with either of the others, which do not agree
    found = compared("腹痛挂什么科？", first, "挂消化科。", "挂普外科。")
    assert (found.contradictory, found.shown["contradictory"]) == (2, [[0, 1, 2]])
    assert compared("腹痛挂什么科？", first, "挂消化科。", "挂消化内科就好。").contradictory == 0


def test_one_department_under_two_names_is_no_contradiction():
    columns = Columns()
    for answer in ("建议到妇科就诊。", "建议到妇产科就诊。", "请到妇产科或内分泌科。"):
        columns.add(texts("月经不调挂什么科？", answer))
    assert disagreement(columns).contradictory == 0
    assert disagreement(columns).different == 2
    assert repeated_answers(columns) == (0, [])


def test_contamination(tmp_path):
    answer = "应当立即停用可疑药物，给予肾上腺素，并送往最近的医院。"
    data = write(tmp_path / "data.jsonl", [("过敏性休克怎么抢救？", answer), ("感冒怎么办？", "多喝水，注意休息。")])
    asked = write(
        tmp_path / "asked.jsonl",
        [("休克了怎么处理呢？", answer), ("感冒怎么办", "看医生。"), ("痛风吃什么？", "低嘌呤。")],
    )
    exam = tmp_path / "exam.jsonl"
    exam.write_text(json.dumps({"question": "过敏时" + answer, "options": ["甲", "乙"], "answer": "A"}), "utf-8")
    found = check(DataCheck(str(data), eval_paths=f"{asked},{exam}"))["contamination"]
    assert found["items"] == 4
    assert found["items_sharing_15_characters"] == found["items_half_covered"] == 2
    assert found["items_asked_again"] == 1
    assert found["where"] == [f"{data}:1", f"{data}:2"]
    clean = write(tmp_path / "clean.jsonl", [("胃痛怎么办？", "规律饮食，少食多餐，避免辛辣。")])
    assert check(DataCheck(str(clean), eval_paths=[str(asked)]))["contamination"]["records"] == 0


def dirty(path):
    good = [(f"{name}怎么办？", f"{name}时应注意休息，并到医院检查{name}的原因。") for name in ("头痛", "腹痛", "胸闷")]
    bad = [
        ("头痛怎么办", "头痛时应注意休息，并到医院检查头痛的原因"),  # a copy
        ("这两种疾病有何不同？", "病因不同，治疗也不同。"),
        ("一名NaN岁女性腹痛怎么办？", "建议到医院检查腹部。"),
        ("胸痛怎么办？", "根据上述知识，应当就医。"),
        ("心悸怎么办？", "可能是\ufffd\ufffd引起。"),
        ("眩晕怎么办？", ""),
    ]
    mended = [
        ("血压１４０高吗？", "<p>偏高，建议监测&nbsp;并就医。</p>"),
        ("我叫王建国，电话13800138000，失眠怎么办？", "睡前少看手机。"),
        ("<p>腹痛怎么办？</p>", "腹痛时应注意休息，并到医院检查腹痛的原因。"),  # a copy once mended
    ]
    return write(path, good + bad + mended)


def test_fix_and_its_ledger(tmp_path, capsys):
    path = dirty(tmp_path / "data.jsonl")
    check_data(DataCheck(str(path), fix=True))
    printed = capsys.readouterr().out
    assert "保留 5 条（其中改动 2 条），删除 7 条" in printed
    assert "13800138000" not in printed
    copy = tmp_path / "data.clean.jsonl"
    ledger = [record for _, record in read_json_records(tmp_path / "data.clean.changes.jsonl")]
    dropped = {entry["where"]: entry["rule"] for entry in ledger if entry["change"] == "drop"}
    edited = {entry["where"]: entry["rule"] for entry in ledger if entry["change"] == "edit"}
    assert list(dropped.values()) == [
        *("exact_duplicate", "contextless", "null_value", "prompt_leak", "damaged", "unusable", "exact_duplicate")
    ]
    assert list(edited.values()) == ["repair", "name, phone"]
    original = dict(read_json_records(path))
    kept = [record for _, record in read_json_records(copy)]
    rest = [(where, record) for where, record in original.items() if where not in dropped]
    assert len(rest) == len(kept)
    for (where, before), after in zip(rest, kept, strict=True):
        assert (before == after) == (where not in edited)
    assert kept[-2] == {"instruction": "血压140高吗？", "input": "", "output": "偏高，建议监测 并就医。"}
    everything = "".join(file.read_text("utf-8") for file in [*tmp_path.glob("data.c*/*"), *tmp_path.glob("*.clean*")])
    assert "13800138000" not in everything and "王建国" not in everything


def everything_in(folder, *but):
    return "".join(path.read_text("utf-8") for path in folder.rglob("*") if path.is_file() and path not in but)


def test_personal_data_in_other_columns(tmp_path, capsys):
    path = tmp_path / "data.csv"
    path.write_text(
        "姓名,电话,问题,回答,科室\n"
        "王建国,88012345,头痛怎么办？,多休息。,内科\n"
        "张桂兰,13800138000,腹痛怎么办？,,内科\n"
        ",,胸闷怎么办？,开窗通风。,内科\n",
        "utf-8",
    )
    check_data(DataCheck(str(path), fix=True))
    report = json.loads((tmp_path / "data.check" / "report.json").read_text("utf-8"))
    found = {one["name"]: one for one in report["findings"] if one["records"]}
    assert (found["personal_name"]["records"], found["personal_phone"]["records"]) == (1, 1)
    assert found["personal_name"]["examples"] == [{"where": f"{path}:2", "text": "姓名：〔姓名〕"}]
    copy = (tmp_path / "data.clean.csv").read_text("utf-8").splitlines()
    assert copy[1:] == ["〔姓名〕,〔电话〕,头痛怎么办？,多休息。,内科", ",,胸闷怎么办？,开窗通风。,内科"]
    edited, dropped = (record for _, record in read_json_records(tmp_path / "data.clean.changes.jsonl"))
    assert (edited["change"], edited["rule"]) == ("edit", "name, phone")
    assert edited["after"] == "头痛怎么办？\n多休息。\n姓名：〔姓名〕\n电话：〔电话〕"
    assert (dropped["change"], dropped["rule"]) == ("drop", "unusable")
    said = everything_in(tmp_path, path) + capsys.readouterr().out
    assert not any(text in said for text in ("王建国", "张桂兰", "88012345", "13800138000"))


def test_personal_data_under_other_keys_however_deep(tmp_path):
    record = {
        "messages": [
            {"role": "user", "content": "头痛怎么办？", "name": "患者王建国，男，56岁"},
            {"role": "assistant", "content": "多休息。"},
        ],
        "patient": {"手机": 13800138000, "contacts": [{"姓名": "李秀英", "age": 56}, "a.b@example.com"]},
        "kind": None,
    }
    path = tmp_path / "data.json"
    path.write_text(json.dumps([record], ensure_ascii=False), "utf-8")
    check_data(DataCheck(str(path), fix=True))
    _, found = findings(path)
    assert found == {"personal_name": 1, "personal_phone": 1, "personal_email": 1}
    ((_, kept),) = read_json_records(tmp_path / "data.clean.json")
    assert kept["messages"][0] == record["messages"][0] | {"name": "患者〔姓名〕，男，56岁"}
    assert kept["patient"] == {"手机": "〔电话〕", "contacts": [{"姓名": "〔姓名〕", "age": 56}, "〔邮箱〕"]}
    assert kept["kind"] is None
    said = everything_in(tmp_path, path)
    assert not any(text in said for text in ("王建国", "13800138000", "李秀英", "a.b@"))


def test_a_mask_under_a_key_is_left_alone():
    for key in (*LABELS.values(), "patient", "患者", "身份证号", "家住", "ID"):
        for label in LABELS.values():
            assert mask_beside(key, f"〔{label}〕") == f"〔{label}〕"
    assert mask_beside("13800138000", "头痛") == "头痛"  # a key stays, and is none of the text


def test_ids_and_facts_of_full_records_stay(tmp_path):
    path = tmp_path / "data.records.jsonl"
    turns = (Turn("user", "偏头痛怎么办？"), Turn("assistant", "多休息。"))
    facts = (("住址：北京市朝阳区幸福路3号", "别称", "x"),)
    write_jsonl(path, [Example("symptoms-19207046142", turns, facts=facts, review="电话13800138000")])
    check_data(DataCheck(str(path), fix=True))
    _, found = findings(path)
    assert found == {"personal_phone": 1}
    ((_, before),), ((_, after),) = (
        list(read_json_records(one)) for one in (path, tmp_path / "data.records.clean.jsonl")
    )
    assert after == before | {"review": "电话〔电话〕"}


def test_fixing_again_changes_nothing(tmp_path):
    path = dirty(tmp_path / "data.jsonl")
    check_data(DataCheck(str(path), fix=True))
    once = tmp_path / "data.clean.jsonl"
    check_data(DataCheck(str(once), fix=True))
    assert once.read_bytes() == (tmp_path / "data.clean.clean.jsonl").read_bytes()
    assert (tmp_path / "data.clean.clean.changes.jsonl").read_text("utf-8") == ""


def test_the_same_file_gives_the_same_report(tmp_path):
    path = dirty(tmp_path / "data.jsonl")
    for name in ("a", "b"):
        check_data(DataCheck(str(path), output_dir=str(tmp_path / name)))
    for name in ("report.md", "report.html", "report.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    page = (tmp_path / "a" / "report.html").read_text("utf-8")
    assert "13800138000" not in page and "<script" not in page and "http" not in page
    assert 'class="bar"' in page


def test_conversations_and_tables_are_read(tmp_path):
    talk = [
        {"from": "human", "value": "偏头痛有什么症状？"},
        {"from": "gpt", "value": GOOD_ANSWER},
        {"from": "human", "value": "这种病怎么治疗？"},
        {"from": "gpt", "value": "根据知识，应当就医。"},
    ]
    path = tmp_path / "talk.json"
    path.write_text(json.dumps([{"conversations": talk}], ensure_ascii=False), "utf-8")
    _, found = findings(path)
    assert found == {"prompt_leak": 1}
    table = tmp_path / "table.csv"
    table.write_bytes("question,answer\n这种病怎么治疗？,多休息。\n".encode("gb18030"))
    contents, found = findings(table)
    assert "gb18030" in contents["format"] and found == {"contextless": 1}


def test_tokens_and_cutoff(tmp_path, tiny_base):
    long = "注意休息。" * 40
    path = write(
        tmp_path / "data.jsonl", [("头痛怎么办？", "多休息。"), ("腹痛怎么办？", long), ("长" * 300, "好的。")]
    )
    tokens = check(DataCheck(str(path), base_model=str(tiny_base), cutoff_len=128))["tokens"]
    assert tokens["cut"] == tokens["eos_lost_when_truncated_plainly"] == 2
    assert tokens["refused"] == 1


def test_errors_say_what_to_do(tmp_path):
    path = write(tmp_path / "data.jsonl", [("头痛怎么办？", "")])
    with pytest.raises(UserError, match="none of its 1 records can be used.*nothing to learn"):
        check(DataCheck(str(path)))
    good = write(tmp_path / "good.jsonl", [("头痛怎么办？", "多休息。")])
    with pytest.raises(UserError, match="is the data itself"):
        check_data(DataCheck(str(good), output_dir=str(tmp_path / "r"), fix=True, fix_path=str(good)))
    odd = tmp_path / "odd.jsonl"
    odd.write_text('{"text": "a"}\n', "utf-8")
    with pytest.raises(UserError, match="needs instruction or question"):
        check(DataCheck(str(good), eval_paths=str(odd)))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a,b\n1,2\n", "asked.txt:1: no column for a question: has a, b;"),
        ("question,answer\n一,二,三\n", "asked.txt:2: has 3 fields, the header 2"),
        ('{"question": \n', "asked.txt:1: not valid JSON"),
        ("[]", "asked.txt: holds no evaluation records"),
        ("", "asked.txt: holds no records"),
    ],
)
def test_a_bad_evaluation_file_is_told_as_what_it_is(tmp_path, content, said):
    data, asked = write(tmp_path / "data.jsonl", [("头痛怎么办？", "多休息。")]), tmp_path / "asked.txt"
    asked.write_text(content, "utf-8")
    with pytest.raises(UserError) as error:
        check(DataCheck(str(data), eval_paths=str(asked)))
    assert said in str(error.value)


def test_places_to_write_are_looked_at_before_the_data_is_read(tmp_path):
    data = tmp_path / "data.jsonl"
    data.write_text("{broken", "utf-8")  # would be told by the scan
    taken, folder = tmp_path / "taken", tmp_path / "folder"
    taken.touch()
    folder.mkdir()
    (tmp_path / "x.changes.jsonl").mkdir()
    for options, said in (
        ({"output_dir": str(taken)}, "output_dir .*taken: cannot write in .*taken .Not a directory.; give another"),
        ({"output_dir": str(taken / "a" / "b")}, "output_dir .*: cannot write in .*taken .Not a directory"),
        ({"output_dir": "/proc/no"}, "output_dir /proc/no: cannot write in /proc "),
        ({"fix": True, "fix_path": str(folder)}, "fix_path .*folder is a folder; give the name of a file"),
        ({"fix": True, "fix_path": str(tmp_path / "x.jsonl")}, "fix_path .*x.changes.jsonl is a folder"),
        ({"fix": True, "fix_path": str(taken / "a.jsonl")}, "fix_path .*: cannot write in .*taken .Not a directory"),
        ({"fix": True, "fix_path": "/proc/no/a.jsonl"}, "fix_path /proc/no: cannot write in /proc "),
        ({"fix": True, "fix_path": str(data)}, "is the data itself"),
    ):
        with pytest.raises(UserError, match=said):
            check_data(DataCheck(str(data), **options))
    named_as_ledger = data.rename(tmp_path / "y.changes.jsonl")
    with pytest.raises(UserError, match="y.changes.jsonl is the data itself"):
        check_data(DataCheck(str(named_as_ledger), fix=True, fix_path=str(tmp_path / "y.jsonl")))
    with pytest.raises(UserError, match="no such file"):
        check_data(DataCheck(str(data), fix=True))
    with pytest.raises(UserError, match="is a folder, expected a file .*CSV"):
        check_data(DataCheck(".", fix=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("folder", "taken", "x.changes.jsonl", "y.changes.jsonl")
    ]


@needs_shared
def test_known_defects_of_a_real_file():
    # of all 8,658 records: 88 questions without context, 131 leaks, 3 NaN, 394 repeated answers; here are 2,000
    contents, found = findings(SHARED / "bentsao_2000.jsonl")
    assert contents["records"] == contents["usable"] == 2000
    assert contents["lengths"]["question"]["median"] == 41 and contents["lengths"]["answer"]["median"] == 54
    assert found["contextless"] >= 20
    assert found["prompt_leak"] >= 26
    assert found["null_value"] >= 1
    assert found["repeated_answers"] >= 34
    assert 0.10 <= contents["advice"] / 2000 <= 0.20


@needs_shared
def test_a_table_in_gb18030_is_read_as_it_is():
    contents, _ = findings(SHARED / "dialogue_300.gb18030.csv")
    assert contents["records"] == contents["usable"] == 300
    assert "gb18030" in contents["format"]
    rows = list(formats.read(SHARED / "dialogue_300.gb18030.csv"))
    assert rows[0].example.turns[0].content.startswith("高血压患者能吃党参吗？")


def test_batches_make_no_difference(tmp_path, monkeypatch):
    path = write(tmp_path / "data.jsonl", [(f"问题{n}怎么办？", text) for n, text in enumerate(varied(40))])
    whole = check(DataCheck(str(path)))
    monkeypatch.setattr(quality, "_BATCH", 7)
    assert check(DataCheck(str(path))) == whole
