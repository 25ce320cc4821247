"""The report of a check, from the contents of report.json: Markdown, a self-contained HTML page, lines to print."""

import html
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from xinglin.dataset.quality.duplicates import GRAM, NEIGHBOURS, PIECE, THRESHOLD
from xinglin.dataset.quality.lengths import EDGES
from xinglin.records import atomic_write

_FIX = {"drop": "删除", "repair": "修复", "mask": "遮盖", "": "留待人工判断"}
_LANGUAGES = {"chinese": "中文", "english": "英文", "mixed": "中英混合", "none": "无文字"}
_LENGTHS = {"question": "问题（含资料），字", "answer": "回答，字", "tokens": "整条记录，token"}
_METHOD = (
    "比较前先归一：全半角、大小写统一，去掉空白与标点。完全重复：归一后问题、资料、回答都相同。",
    f"近似重复：归一文本的 {PIECE} 字片段，MinHash 估计 Jaccard ≥ {THRESHOLD}（误差约 ±0.04），相连者归为一组；"
    f"同一桶内每条只与其后 {NEIGHBOURS} 条比较。",
    "“相互矛盾”只指：是非问句的回答一是一否，问科室而所答科室无一相同，或回答只有数字不同。",
    "个人信息由规则找出，报告中一律遮盖；规则会漏，也会误报，不能代替人工审查。",
    "剂量指回答里的药量与用药次数；血压、化验值、饮食量不算。",
)


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "—"


def _facts(contents: dict[str, Any]) -> list[list[str]]:
    """The plain figures: label and value."""
    records, usable = contents["records"], contents["usable"]
    languages = "，".join(f"{_LANGUAGES[name]} {count:,}" for name, count in contents["languages"].items())
    rows = [
        ["记录", f"{records:,} 条，可用 {usable:,} 条（{contents['format']}）"],
        ["建议就医的回答", f"{contents['advice']:,} 条（{_share(contents['advice'], usable)}）"],
        ["回答的语言", languages],
    ]
    rows += [[label, _spread(figures)] for label, figures in _lengths(contents)]
    if tokens := contents.get("tokens"):
        rows += [
            [
                f"超过 cutoff_len {tokens['cutoff_len']}",
                f"{tokens['cut']:,} 条被截断（{_share(tokens['cut'], usable)}）",
            ],
            ["截断后的结束符", f"普通截断会丢失 {tokens['eos_lost_when_truncated_plainly']:,} 条；本项目的编码器不丢"],
            ["截断后无可学内容", f"{tokens['refused']:,} 条（训练时略去）"],
            ["token/字", f"{tokens['tokens_per_character']}（{tokens['base_model']}）"],
        ]
    return rows + _overlap(contents) + _supported(contents)


def _spread(figures: dict[str, Any]) -> str:
    low, middle, high, most = (f"{figures[name]:,}" for name in ("min", "median", "p95", "max"))
    return f"中位数 {middle}，95 % 不超过 {high}，最短 {low}，最长 {most}"


def _lengths(contents: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    found = [(_LENGTHS[name], contents["lengths"][name]) for name in ("question", "answer")]
    return found + ([(_LENGTHS["tokens"], contents["tokens"]["lengths"])] if "tokens" in contents else [])


def _overlap(contents: dict[str, Any]) -> list[list[str]]:
    found = contents.get("contamination")
    if not found:
        return []
    return [
        ["评测题", f"{found['items']:,} 道（{'、'.join(Path(path).name for path in found['files'])}）"],
        [f"与训练数据有相同 {GRAM} 字片段", f"{found['items_sharing_15_characters']:,} 道"],
        [f"半数以上 {GRAM} 字片段在训练数据中", f"{found['items_half_covered']:,} 道"],
        ["问题原样出现在训练数据中", f"{found['items_asked_again']:,} 道"],
        ["与某条训练记录近似重复", f"{found['items_nearly_whole']:,} 道"],
        ["与评测题重叠的训练记录", f"{found['records']:,} 条"],
    ]


def _supported(contents: dict[str, Any]) -> list[list[str]]:
    found = contents.get("graph")
    if not found:
        return []
    share = _share(found["supported"], found["statements"])
    return [["图谱支持的说法", f"{found['statements']:,} 条中 {found['supported']:,} 条（{share}；没有不等于错）"]]


def _fixes(contents: dict[str, Any]) -> list[str]:
    found = contents.get("fix")
    if not found:
        return []
    return [
        f"清洗：保留 {found['kept']:,} 条（其中改动 {found['edited']:,} 条），删除 {found['dropped']:,} 条",
        f"清洗后的文件：{found['path']}；改动清单：{found['ledger']}",
    ]


def summary(contents: dict[str, Any]) -> list[str]:
    """What the command prints, the most important first."""
    lines = [f"{contents['file']}"]
    found = [one for one in contents["findings"] if one["records"]]
    lines += [f"{one['records']:>9,}  {one['share']:>6.1%}  {one['label']}" for one in found]
    if not found:
        lines.append("没有发现问题")
    return [*lines, "", *(f"{label}：{value}" for label, value in _facts(contents)), *_fixes(contents)]


_HEAD = ["发现", "条数", "占比", "--fix 如何处理"]


def _findings(contents: dict[str, Any]) -> list[list[str]]:
    return [
        [one["label"], f"{one['records']:,}", f"{one['share']:.1%}", _FIX[one["fix"]]] for one in contents["findings"]
    ]


def _examples(contents: dict[str, Any]) -> list[tuple[str, list[list[str]]]]:
    """Findings that have examples, and those as (where, text)."""
    shown = [(one["label"], one["examples"]) for one in contents["findings"]]
    if "contamination" in contents:
        shown.append(("与评测题重叠", contents["contamination"]["examples"]))
    return [(label, [[one["where"], one["text"]] for one in examples]) for label, examples in shown if examples]


def _bins() -> list[str]:
    ends = [f"{low}–{high - 1}" for low, high in pairwise(EDGES)]
    return [*ends, f"{EDGES[-1]} 以上"]


def to_markdown(contents: dict[str, Any]) -> str:
    """The report as Markdown; bars are drawn with blocks."""
    parts = [
        f"# 数据检查：{Path(contents['file']).name}",
        _table(["项目", "结果"], _facts(contents)),
        "## 发现",
        _table(_HEAD, _findings(contents)),
        *([f"{' '.join(_fixes(contents))}"] if "fix" in contents else []),
        "## 长度分布",
    ]
    for label, figures in _lengths(contents):
        most = max(figures["histogram"])
        rows = [
            [name, f"{count:,}", "█" * round(30 * count / most)]
            for name, count in zip(_bins(), figures["histogram"], strict=True)
        ]
        parts.append(_table([label, "条数", ""], rows))
    parts.append("## 例子")
    for label, examples in _examples(contents):
        parts += [f"### {label}", _table(["出处", "内容"], examples)]
    return "\n\n".join([*parts, "## 怎样检查的", "\n".join(f"- {line}" for line in _METHOD), ""])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def cell(text: str) -> str:
        return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", "<br>")

    lines = [head, ["---"] * len(head), *([cell(text) for text in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


_STYLE = """
body{font:16px/1.65 system-ui,"PingFang SC","Noto Sans CJK SC","Microsoft YaHei",sans-serif;max-width:1100px;
margin:0 auto;padding:1rem;color:#222;background:#fff}
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2rem;border-bottom:1px solid #ccc}h3{font-size:1rem}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.9rem}
th,td{border:1px solid #ccc;padding:.35rem .6rem;vertical-align:top;text-align:left;overflow-wrap:anywhere}
th{background:#f2f5f2}.bars{display:grid;grid-template-columns:max-content 1fr;gap:.2rem .8rem;font-size:.85rem}
.bar{background:#5b8c6e;display:inline-block;height:.8rem;margin-right:.4rem;vertical-align:middle}
@media(max-width:600px){.bars{grid-template-columns:1fr}}@media print{body{max-width:none}.scroll{overflow:visible}}
"""


def _bars(labels: Sequence[str], counts: Sequence[int]) -> str:
    """Horizontal bars, as wide as their share of the largest."""
    most = max([*counts, 1])
    rows = (
        f'<div>{html.escape(label)}</div><div><span class="bar" style="width:{85 * count / most:.1f}%"></span>'
        f"{count:,}</div>"
        for label, count in zip(labels, counts, strict=True)
    )
    return f'<div class="bars">{"".join(rows)}</div>'


def _html_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        shown = (html.escape(text).replace("\n", "<br>") for text in cells)
        return "<tr>" + "".join(f"<{tag}>{text}</{tag}>" for text in shown) + "</tr>"

    body = "\n".join(line(row, "td") for row in rows)
    return f'<div class="scroll"><table><thead>{line(head, "th")}</thead><tbody>\n{body}\n</tbody></table></div>'


def to_html(contents: dict[str, Any]) -> str:
    """The report as one HTML page that needs nothing beside it."""
    title = html.escape(f"数据检查：{Path(contents['file']).name}")
    found = [one for one in contents["findings"] if one["records"]]
    histograms = "".join(
        f"<h3>{html.escape(label)}</h3>{_bars(_bins(), figures['histogram'])}" for label, figures in _lengths(contents)
    )
    examples = "".join(
        f"<h3>{html.escape(label)}</h3>{_html_table(['出处', '内容'], rows)}" for label, rows in _examples(contents)
    )
    fixes = "".join(f"<p>{html.escape(line)}</p>" for line in _fixes(contents))
    method = "".join(f"<li>{html.escape(line)}</li>" for line in _METHOD)
    return f"""<!doctype html>
<html lang="zh-CN"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>{title}</title><style>{_STYLE}</style></head><body>
<h1>{title}</h1>{_html_table(["项目", "结果"], _facts(contents))}
<h2>发现</h2>{_bars([one["label"] for one in found], [one["records"] for one in found])}
{_html_table(_HEAD, _findings(contents))}{fixes}
<h2>长度分布</h2>{histograms}
<h2>例子</h2>{examples}
<h2>怎样检查的</h2><ul>{method}</ul>
</body></html>
"""


def write(contents: dict[str, Any], folder: Path) -> None:
    """Write report.md and report.html."""
    for name, text in (("report.md", to_markdown(contents)), ("report.html", to_html(contents))):
        with atomic_write(folder / name) as file:
            file.write(text)
