"""The report of a comparison: Markdown, one self-contained HTML page, and JSON."""

import base64
import html
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xinglin.records import Example, Score, atomic_write, to_json, write_json

_COLUMNS = (("base", "基座输出"), ("tuned", "微调后输出"), ("tuned_facts", "微调后 + 资料"))
_FORMS = {
    "symptoms": "症状",
    "examinations": "检查",
    "department": "科室",
    "complications": "并发症",
    "comparison": "两病比较",
    "causes": "病因",
    "treatment": "治疗方法",
    "body_site": "部位",
    "population": "人群",
    "infectious": "传染",
    "route": "传播途径",
    "same_cause": "病因是否一致",
    "same_department": "科室是否相同",
    "verify_department": "核实科室",
    "verify_alias": "核实别名",
    "vignette_disease": "病例：疾病",
    "vignette_department": "病例：科室",
    "vignette_examinations": "病例：检查",
    "vignette_treatment": "病例：治疗",
    "exam_diseases": "检查查什么病",
    "herb_effects": "中药功效",
}
NOTICE = "本页回答均为 AI 生成，仅供研究，不作诊疗依据；身体不适请就医，胸痛、意识不清、大出血等急症请立即拨打 120。"


@dataclass(frozen=True)
class Report:
    """Everything that the report shows.

    Attributes:
        systems: system → its name for readers.
        questions: the report's own two first, then those about unseen diseases.
        answers: system → question id → answer.
        adapter: the run's folder, for its metrics and loss curve.
    """

    systems: Mapping[str, str]
    scores: list[Score]
    questions: list[Example]
    answers: dict[str, dict[str, str]]
    base: str
    adapter: Path

    def score(self, metric: str, label: str) -> Score | None:
        """One figure, None when the system has no such figure."""
        return next((one for one in self.scores if one.metric == metric and one.slice == label), None)

    @property
    def asked(self) -> int:
        """How many of the questions are about unseen diseases."""
        return sum(1 for one in self.questions if one.form != "report")

    def metrics(self) -> dict[str, Any]:
        """The training run's `metrics.json`, empty when there is none."""
        path = self.adapter / "metrics.json"
        return dict(json.loads(path.read_text("utf-8"))) if path.is_file() else {}


def _figure(score: Score | None, digits: int = 2) -> str:
    if score is None:
        return "—"
    return f"{score.value:.{digits}f} [{score.low:.{digits}f}, {score.high:.{digits}f}]"


def _figures(report: Report) -> list[list[str]]:
    """The table of figures, a row a system."""
    rows = []
    for system, label in report.systems.items():
        closed = {"base": "base", "tuned": "tuned"}.get(system, "")
        given = {"tuned_facts": "tuned_facts"}.get(system, "")
        rows.append(
            [
                label,
                _figure(report.score("nll_per_character", closed), 3),
                _figure(report.score("nll_per_character", given), 3),
                _figure(report.score("fact_recall", system)),
                _figure(report.score("fact_precision", system)),
                _figure(report.score("ended_by_itself", system)),
            ]
        )
    rows.append(
        ["（基座 + 资料，仅 NLL）", "—", _figure(report.score("nll_per_character", "base_facts"), 3), *["—"] * 3]
    )
    return rows


_HEAD = ["系统", "NLL/字，不给资料", "NLL/字，给资料", "事实召回", "提及的事实中应有者", "自行结束"]


def _verdict(score: Score | None, better: str, worse: str) -> str:
    """Say a difference only when its interval leaves out zero."""
    if score is None or score.low <= 0 <= score.high:
        return "差异不显著"
    return better if score.value > 0 else worse


def findings(report: Report) -> list[str]:
    """What the figures show, and what they do not; every conclusion is drawn only where its figure bears it."""
    return [*_on_form(report), *_on_facts(report), _on_memory(report), *_on_controls(report), _LIMIT]


_LIMIT = "“事实”以知识图谱 cMeKG 为准。图谱不完整，也有错；召回高不等于医学上正确。"


def _on_form(report: Report) -> list[str]:
    nll = report.score("nll_difference", "tuned-base")
    verdict = _verdict(nll, "微调后更高（更差）", "微调后更低（更好），学到了答题的形式和用语")
    return [f"不给资料时，参考答案的 NLL/字：微调后减基座 {_figure(nll, 3)}——{verdict}。"]


def _on_facts(report: Report) -> list[str]:
    recall = report.score("recall_difference", "tuned_facts-base_facts_3")
    by_form = [
        f"{_FORMS.get(one.slice.split('/')[1], one.slice)} {one.value:.2f}（n={one.n}）"
        for one in report.scores
        if one.metric == "fact_recall" and "/" in one.slice
    ]
    return [
        f"给资料时的事实召回：微调后 {_figure(report.score('fact_recall', 'tuned_facts'))}；"
        f"减去“基座 + 资料 + 三个示例”得 {_figure(recall)}——{_verdict(recall, '微调后更高', '微调后更低')}。"
        f"分题型：{'、'.join(by_form)}。"
    ]


def _on_memory(report: Report) -> str:
    closed = report.score("fact_recall", "tuned")
    if closed is not None and closed.high < _UNUSABLE:
        return (
            f"不给资料时微调后的事实召回只有 {_figure(closed)}：它不知道没学过的疾病的事实。"
            "不给资料的回答看上去通顺，内容不可信。"
        )
    return f"不给资料时微调后的事实召回 {_figure(closed)}；没有资料作依据的回答，内容须逐条核对。"


def _on_controls(report: Report) -> list[str]:
    table, tuned = report.score("fact_recall", "lookup"), report.score("fact_recall", "tuned_facts")
    if table is None or tuned is None:
        return []
    better = "不低于" if table.value >= tuned.value else "低于"
    return [
        f"不用模型的查表召回 {_figure(table)}，{better}微调后 + 资料 {_figure(tuned)}："
        "照抄摆在面前的资料不需要懂医学，这些数字也不证明模型懂医学。"
    ]


_UNUSABLE = 0.3
"""Recall below which closed-book answers are called what they are."""


def _setting(report: Report) -> list[str]:
    metrics = report.metrics()
    lines = [
        f"基座：{Path(report.base).name}；所有系统用同一个提示模板，基座自带的对话模板没有用上。",
        f"提问：{report.asked} 个问题，疾病与问法都取自留出的部分（适配器须由同一次构建的训练数据得来，才算没见过）；"
        "资料的顺序打乱，并混入另一种疾病的资料。",
        "方括号内为 95 % 置信区间（按问题重抽样 2,000 次；全 0 或全 1 时用三分之法则）。",
    ]
    if metrics:
        loss = f"，eval_loss {metrics['eval_loss']:.4f}" if metrics.get("eval_loss") is not None else ""
        lines.append(
            f"训练：{metrics['train_records']} 条、{metrics['steps']} 步，"
            f"train_loss {metrics['train_loss']:.4f}{loss}，"
            f"{metrics['seconds']:.0f} 秒，可训练参数 {metrics['trainable_parameters']:,}。"
        )
    return lines


def _rows(report: Report) -> list[list[str]]:
    """Question (with its facts) and each system's answer."""
    rows = []
    for example in report.questions:
        question = example.question
        given = f"\n〔资料〕\n{question.input}" if question.input else ""
        rows.append([question.content + given, *(report.answers[system][example.id] for system, _ in _COLUMNS)])
    return rows


def _markdown_table(head: list[str], rows: list[list[str]]) -> str:
    def cell(text: str) -> str:
        return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", "<br>")

    lines = [head, ["---"] * len(head), *([cell(text) for text in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def to_markdown(report: Report) -> str:
    """The report as Markdown."""
    head = ["问题", *(label for _, label in _COLUMNS)]
    return "\n\n".join(
        [
            "# 杏林：微调前后对比",
            f"> {NOTICE}",
            "\n".join(f"- {line}" for line in _setting(report)),
            "## 数字",
            _markdown_table(_HEAD, _figures(report)),
            "## 说明了什么，没有说明什么",
            "\n".join(f"- {line}" for line in findings(report)),
            "## 逐题对照",
            "前两行是原报告的两个问题，其余是未参与训练的疾病。",
            _markdown_table(head, _rows(report)),
            "",
        ]
    )


def _html_table(head: list[str], rows: list[list[str]], css: str) -> str:
    def line(cells: list[str], tag: str) -> str:
        shown = (html.escape(text).replace("\n", "<br>") for text in cells)
        return "<tr>" + "".join(f"<{tag}>{text}</{tag}>" for text in shown) + "</tr>"

    body = "\n".join(line(row, "td") for row in rows)
    inner = f"<thead>{line(head, 'th')}</thead><tbody>\n{body}\n</tbody>"
    return f'<div class="scroll"><table class="{css}">{inner}</table></div>'


_STYLE = """
body{font:16px/1.65 system-ui,"PingFang SC","Noto Sans CJK SC","Microsoft YaHei",sans-serif;max-width:1100px;
margin:0 auto;padding:1rem;color:#222;background:#fff}
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2rem;border-bottom:1px solid #ccc}
.notice{background:#fff6e0;border-left:4px solid #d99000;padding:.5rem 1rem}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.9rem}
th,td{border:1px solid #ccc;padding:.35rem .6rem;vertical-align:top;text-align:left}
th{background:#f2f5f2}.answers td{min-width:11rem;overflow-wrap:anywhere}.figures td+td{white-space:nowrap}
img{max-width:100%}@media print{body{max-width:none}.scroll{overflow:visible}}
"""


def to_html(report: Report) -> str:
    """The report as one HTML page that needs nothing beside it."""
    curve = report.adapter / "curves.png"
    picture = ""
    if curve.is_file():
        data = base64.b64encode(curve.read_bytes()).decode()
        picture = f'<h2>训练曲线</h2><img alt="训练曲线" src="data:image/png;base64,{data}">'
    setting = "".join(f"<li>{html.escape(line)}</li>" for line in _setting(report))
    found = "".join(f"<li>{html.escape(line)}</li>" for line in findings(report))
    head = ["问题", *(label for _, label in _COLUMNS)]
    return f"""<!doctype html>
<html lang="zh-CN"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>杏林：微调前后对比</title><style>{_STYLE}</style></head><body>
<h1>杏林：微调前后对比</h1><p class="notice">{NOTICE}</p><ul>{setting}</ul>
<h2>数字</h2>{_html_table(_HEAD, _figures(report), "figures")}
<h2>说明了什么，没有说明什么</h2><ul>{found}</ul>{picture}
<h2>逐题对照</h2><p>前两行是原报告的两个问题，其余是未参与训练的疾病。</p>
{_html_table(head, _rows(report), "answers")}
</body></html>
"""


def write_report(report: Report, folder: Path) -> dict[str, Any]:
    """Write report.md, report.html and report.json; return the last one's contents."""
    contents = {
        "base": report.base,
        "adapter": str(report.adapter),
        "training": report.metrics(),
        "questions_on_unseen_diseases": report.asked,
        "scores": [to_json(score) for score in report.scores],
        "findings": findings(report),
        "rows": [
            {"id": one.id, "question": one.question.content, "input": one.question.input}
            | {system: report.answers[system][one.id] for system in report.systems}
            for one in report.questions
        ],
    }
    for name, text in (("report.md", to_markdown(report)), ("report.html", to_html(report))):
        with atomic_write(folder / name) as file:
            file.write(text)
    write_json(folder / "report.json", contents)
    return contents
