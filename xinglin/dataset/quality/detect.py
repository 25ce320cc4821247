"""What can be wrong with one record: a named test each, from its texts alone.

    {"instruction": "这两种疾病的病因有何不同？", "input": "", "output": "根据知识，两者病因不同"}
    → contextless 这两种疾病, prompt_leak 根据知识, cut_end 者病因不同

Every test takes the record's `Texts` and gives the piece of text that it objects to, or an empty string.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from xinglin.records import Example


@dataclass(frozen=True)
class Texts:
    """A record as the tests see it.

    Attributes:
        question: the first user turn, which nothing precedes.
        context: what stands beside it: its input and a system turn.
        asked: all user turns.
        answer: all assistant turns.
    """

    question: str
    context: str
    asked: str
    answer: str

    @property
    def whole(self) -> str:
        """Everything that is said."""
        return "\n".join(filter(None, (self.context, self.asked, self.answer)))


def texts_of(example: Example) -> Texts:
    """Sort a conversation's turns."""
    users = [turn for turn in example.turns if turn.role == "user"]
    beside = [turn.content for turn in example.turns if turn.role == "system"] + [turn.input for turn in users]
    return Texts(
        question=users[0].content,
        context="\n".join(filter(None, beside)),
        asked="\n".join(turn.content for turn in users),
        answer="\n".join(turn.content for turn in example.turns if turn.role == "assistant"),
    )


def _found(rule: re.Pattern[str], text: str) -> str:
    match = rule.search(text)
    return match[0].strip() if match else ""


_POINTING = re.compile(
    "(?:这|那|此|该|上述|以上|前述|(?<!哪)(?<!有)(?=[两几]))(?:[两三几些]?[种个类位名]?)"
    "(?:疾病|病症|病例|病人|患者|症状|药物?|检查|情况|知识|方案|方法|综合征|病)|^(?:请问)?[他她它其](?:们)?的?"
)
_LETTER = "[0-9A-Za-z\u4e00-\u9fff]"
_GREETING = re.compile(f"请问|您好|你好|医生|那么|对于|关于|如果|假如|区分|比较|说明|简述|(?!{_LETTER}).")
# words that any medical question may be made of; one made of nothing else is about nothing
_GENERIC = re.compile(
    "[\u4e00-\u9fff](?:先生|女士|某)|请问|您好|你好|谢谢|医生|大夫|应该|需要|可以|可能|能够|怎么样|怎么|怎样|如何|什么|哪些|哪种|哪个|哪里|何处|有何|为何"
    "|多久|多少|在于|治疗|治愈|方案|方法|措施|手段|方式|检查|诊断|预防|症状|体征|病因|病原|表现|临床|区别|不同|异同|相同|差异|之处|之间|方面|办法"
    "|传染|遗传|原因|注意|事项|饮食|护理|科室|就诊|手术|术前|术后|准备|出院|患者|病人|疾病|药物|并发症|知识|类型|部位|发病|人群|群体|多发|因素|上述|以上"
    "|[应该要能会可吗呢哪何是有的做用吃药上办好不去看这那种个两几些点处病治它他她其和与及或都还最在为得了我啊吧]"
    f"|(?!{_LETTER})."
)
_POINTED_AT = 3  # so many characters before a pointing word may be what it points at
_TELLS = 24  # so many after it tell the case themselves


def contextless(texts: Texts) -> str:
    """A question that points at something nobody has named (这两种疾病…), or that names no subject at all."""
    if texts.context.strip():
        return ""
    match = _POINTING.search(texts.question)
    if match:
        before = _GREETING.sub("", texts.question[: match.start()])
        if len(before) < _POINTED_AT and len(texts.question) - match.end() <= _TELLS:
            return match[0]
    return texts.question.strip() if not _GENERIC.sub("", texts.question) else ""


_NULL = re.compile(
    "(?:^|(?<=[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]))\\s?(?:NaN|nan|None|null|NULL|undefined|#N/A)"
    "(?=\\s?[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]|\\s*$)"
)


def null_value(texts: Texts) -> str:
    """A missing value written out as text (NaN岁)."""
    return _found(_NULL, texts.asked) or _found(_NULL, texts.answer)


_LEAK = re.compile(
    "根据(?:以上|上述|所述|所给|给定|给出的?|提供的?|已有|已知|现有|相关|这些|题目|题中)?的?(?:医学|背景|参考)?知识"
    "|知识[点库]?(?:中|里|所述)(?:的|可|均|提到|没有|未|，)|(?:[两三]个|这[条些]|该|上述|以上|已知|给定|所给)知识|中心词"
    "|作为(?:一[个名款位])?(?:AI|人工智能|大?语言模型|大模型|智能助手)|我(?:只是|是)(?:一[个名款位])?(?:AI|人工智能|大?语言模型|大模型)"
    "|以下是.{0,12}(?:问答|对话|指令)|根据(?:提供|给出)的(?:信息|资料|材料|文本|上下文)|(?:提供|给出)的(?:资料|材料|文本|上下文)中"
    r"|###\s?(?:Response|Instruction|Input|回答|问题|指令)|Below is an instruction"
    "|[Aa]s an AI|[Aa]s a (?:large )?language model"
    r"|<\|?(?:im_start|im_end|endoftext|user|assistant)\|?>|\[/?INST\]|ChatGPT|OpenAI"
)


def prompt_leak(texts: Texts) -> str:
    """An answer that speaks of the prompt it was generated from (根据知识…, 中心词, 作为一个AI)."""
    return _found(_LEAK, texts.answer)


# the replacement sign, private and control characters; 锟斤拷; UTF-8 read as Latin-1 (ä¸­), GBK as Latin-1 (ÖÐ¹ú),
# UTF-8 read as GBK (锛, 銆)
DAMAGE = re.compile(
    "[\ufffd\ue000-\uf8ff\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]|锟斤拷|烫烫烫|屯屯屯|[锛銆]"
    "|[ÃÂâäåæçè][\xa0-\xbf€‚ƒ„†‡ˆ‰Š‹Œ•˜™š›œžŸ]|[À-ÿ][¡-ÿ][À-ÿ][¡-ÿ]"
)


def damaged(texts: Texts) -> str:
    """Characters that a wrong encoding has left behind."""
    return _found(DAMAGE, texts.whole)


HTML = re.compile(
    r"</?(?:p|br|div|span|a|img|table|tbody|tr|td|th|b|i|u|strong|em|ul|ol|li|font|sup|sub|script|style|h[1-6])(?:\s[^<>]*)?/?>"
    r"|&(?:nbsp|lt|gt|amp|quot|apos|ldquo|rdquo|mdash|hellip|middot|#\d{2,6}|#x[0-9A-Fa-f]{2,5});"
)


def html(texts: Texts) -> str:
    """Tags and entities of a web page."""
    return _found(HTML, texts.whole)


_LOOP = re.compile(r"(?=[^\W_])(.{4,20}?)\1{3,}")


def loop(texts: Texts) -> str:
    """The same four to twenty characters four times in a row."""
    match = _LOOP.search(texts.answer)
    return match[1] * 2 + "…" if match else ""


_PAIRS = (("（(", "）)"), ("【[", "】]"), ("《", "》"), ("“", "”"))
_ENUMERATOR = re.compile(
    r"(?:(?<=^)|(?<=[\s，。；：、,.;:]))[0-9A-Za-z一二三四五六七八九十]{1,2}[)）]|[:;：；]-?[)(）（]", re.MULTILINE
)


def brackets(texts: Texts) -> str:
    """An answer with a bracket that is opened or closed, but not both; 1) and 2) count as no brackets."""
    answer = texts.answer
    for opening, closing in _PAIRS:
        if sum(map(answer.count, opening)) != sum(map(answer.count, closing)):
            answer = _ENUMERATOR.sub("", answer)
            if sum(map(answer.count, opening)) != sum(map(answer.count, closing)):
                return opening[0] + closing[0]
    return ""


_FINAL = frozenset("。！？.!?…）)】]」』”\"'~～；;》>%％")
_SHORT = 10


def cut_end(texts: Texts) -> str:
    """An answer of more than a few words that ends without a final mark: perhaps cut off."""
    answer = texts.answer.rstrip()
    return answer[-6:] if len(answer) > _SHORT and answer[-1] not in _FINAL else ""


_CHINESE = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")
_LATIN = re.compile("[A-Za-z]")
_ENGLISH_LETTERS = 20


def language(text: str) -> str:
    """`chinese`, `english` or `mixed` (neither has twice as many characters as the other), `none` without any."""
    chinese, latin = len(_CHINESE.findall(text)), len(_LATIN.findall(text))
    if chinese == latin == 0:
        return "none"
    # an English word has about as many letters as its translation twice over
    return "chinese" if chinese >= latin else "english" if latin > 4 * chinese else "mixed"


def english_answer(texts: Texts) -> str:
    """An answer mostly in Latin letters."""
    letters = len(_LATIN.findall(texts.answer))
    return texts.answer[:20] if letters >= _ENGLISH_LETTERS and language(texts.answer) == "english" else ""


_TRADITIONAL = re.compile(
    "[醫療藥體檢臟腫氣經過與應該這個們時為發動開關電話問題預後節頭腦顏脈膽腎腸腺癥瘡癢壓溫熱飲餐養護診斷讓歲給說對會來還沒麼麽點種類傳導專業術婦產兒]"
)


def traditional(texts: Texts) -> str:
    """An answer in traditional characters."""
    found = _TRADITIONAL.findall(texts.answer)
    return "".join(found[:8]) if len(set(found)) >= 3 and len(found) * 20 >= len(texts.answer) else ""


_AMOUNT = r"(?:\d+(?:\.\d+)?|[一二两三四五六七八九十半])\s?"
_LAB = r"(?!\s?/\s?(?:d?[lL](?![A-Za-z])|ml|mL|min|分|升|h|24h)|[A-Za-z])"
_GIVE = (
    "(?:口服|服用|顿服|冲服|吞服|内服|外用|涂抹|静滴|静脉|肌注|肌内|皮下|注射|滴注|输注|滴眼|含服"
    "|煎服|水煎|每次|一次|剂量|用量)"
)
_TIMES = (
    r"(?:(?:每[日天晚早]|[一1]?[日天])\s?[0-9一二两三四]\s?次|[0-9一二两三四]\s?次\s?/\s?[日天]|每\s?\d+\s?小时"
    r"|\b(?:q[dn]|bid|tid|qid|q\d+h)\b)"
)
DOSE = re.compile(
    rf"{_AMOUNT}(?:mg|毫克|μg|ug|微克|IU|万?单位|片|粒|丸|mg/kg)(?!段){_LAB}"
    rf"|{_GIVE}[^。；]{{0,14}}?{_AMOUNT}(?:g|克|ml|mL|毫升|支|袋|包|滴|U){_LAB}"
    rf"|(?:{_GIVE}|服药|用药)[^。；]{{0,14}}?{_TIMES}"
    rf"|(?:[\u4e00-\u9fff]{{2,4}}\s?\d+\s?[克g][，、,\s]*){{2}}"
)


def dose(texts: Texts) -> str:
    """An answer that says how much of a drug, or how often; blood pressure, laboratory values, meals are none."""
    return _found(DOSE, texts.answer)


_SENDING = (
    "(?:就医|就诊|求医|看医生|遵医嘱|医院|(?:咨询|询问|联系|告知|听从|在|请|找|由|让).{0,8}(?:医生|医师|大夫|专家)|医生.{0,6}(?:指导|建议|评估)"
    "|(?:到|去|前往|挂|转).{0,8}(?:门诊|科室|科(?=[，。、就看检诊治])|急诊)|拨打\\s?120)"
)
_NEEDLESS = "(?:不用|不需|无需|不必|没必要)(?:要|再|去|到|上|立即|立刻|马上|急着|专门){0,2}"
# what is needless is read first, so that the rest of the pattern does not find it
_ADVICE = re.compile(f"{_NEEDLESS}{_SENDING}|(?P<advice>{_SENDING})")


def advice(texts: Texts) -> str:
    """An answer that sends the reader to a doctor or a hospital; 不用就医 does not."""
    return next((match["advice"] for match in _ADVICE.finditer(texts.answer) if match["advice"]), "")


@dataclass(frozen=True)
class Rule:
    """One test: what readers call it, and what `--fix` does about it (`drop`, `repair` or nothing)."""

    label: str
    test: Callable[[Texts], str]
    fix: str = ""


RULES: dict[str, Rule] = {
    "contextless": Rule("问题缺上下文（“这两种疾病”指谁？）", contextless, "drop"),
    "null_value": Rule("空值写进了文字（NaN、None）", null_value, "drop"),
    "prompt_leak": Rule("回答泄露提示词（“根据知识”“中心词”“作为AI”）", prompt_leak, "drop"),
    "damaged": Rule("乱码", damaged, "drop"),
    "html": Rule("网页标签或实体", html, "repair"),
    "loop": Rule("同一段话连续重复", loop, "drop"),
    "brackets": Rule("括号或引号不成对", brackets),
    "cut_end": Rule("结尾没有句末标点（可能截断）", cut_end),
    "english_answer": Rule("回答以英文为主", english_answer),
    "traditional": Rule("回答用繁体字", traditional),
    "dose": Rule("回答含剂量", dose),
}
"""Name → test, the gravest first."""


def defects(texts: Texts) -> dict[str, str]:
    """All that the tests object to: rule → the piece of text."""
    return {name: piece for name, rule in RULES.items() if (piece := rule.test(texts))}
