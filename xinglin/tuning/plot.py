"""The curves of one run, or of several over each other: a picture, and a page that opens without a network.

xinglin plot runs/r8 runs/r16
"""

import html
import io
import logging
import re
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.lines import Line2D

from xinglin.errors import UserError
from xinglin.records import atomic_write
from xinglin.tuning.options import PlotConfig
from xinglin.tuning.panels import COLOURS, PANELS, Panel, draw_panel
from xinglin.tuning.runlog import RunLog, open_runs

log = logging.getLogger(__name__)

_LATIN = "DejaVu Sans"
"""The font that comes with matplotlib."""


def _figure(runs: Sequence[RunLog], *, bilingual: bool) -> Figure:
    """The four panels with the names of the runs above them."""
    figure = Figure(figsize=(12, 8), layout="constrained")
    for axes, panel in zip(figure.subplots(2, 2).flat, PANELS, strict=True):
        draw_panel(axes, panel, runs, bilingual=bilingual)
    colours = [Line2D([], [], color=colour, linewidth=3) for colour, _ in zip(COLOURS, runs, strict=False)]
    widest = max(len(run.name.encode("gbk", "replace")) for run in runs)  # a Chinese character is two letters wide
    columns = max(1, min(len(runs), 130 // (widest + 8)))
    # matplotlib would hide a name that begins with _ and read formulas between $, so names are set afterwards
    legend = figure.legend(colours, ["run"] * len(runs), loc="outside upper center", ncols=columns, frameon=False)
    for text, run in zip(legend.get_texts(), runs, strict=True):
        text.set_parse_math(False)
        text.set_text(run.name)
    return figure


def draw(runs: Sequence[RunLog], path: Path) -> None:
    """Draw loss, learning rate, gradient norm and throughput over the optimizer steps as PNG.

    The labels are Chinese and English, or English alone where no font with Chinese characters is installed.

    Args:
        runs: 1 to 8, which get a colour each.
    """
    font = _chinese_font()
    with matplotlib.rc_context(_settings(font, _LATIN)), warnings.catch_warnings(), atomic_write(path, "wb") as file:
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a run's name may hold any character
        _figure(runs, bilingual=font is not None).savefig(file, format="png", dpi=120)


def _settings(*fonts: str | None) -> dict[str, Any]:
    """Matplotlib's settings; text in SVG stays text, for the fonts of whoever reads it."""
    families = [font for font in fonts if font]
    return {"font.family": families, "font.size": 10.5, "svg.fonttype": "none", "svg.hashsalt": "xinglin"}


_CHINESE_FONTS = (
    *("Noto Sans CJK SC", "Source Han Sans SC", "Source Han Sans CN", "Noto Sans SC", "PingFang SC", "Microsoft YaHei"),
    *("Hiragino Sans GB", "Noto Sans CJK", "Source Han Sans", "WenQuanYi", "Heiti", "SimHei", "Droid Sans Fallback"),
    *("CJK", "Source Han", "Song", "SimSun", "Kai", "AR PL", "Arial Unicode"),
)
"""Parts of the names of fonts to look into first, in order of preference."""


@cache
def _chinese_font() -> str | None:
    """The name of an installed font that has the labels' characters; without one, says so once."""
    fonts = font_manager.fontManager
    if found := _first_chinese(fonts.ttflist):
        return found
    listed = {entry.fname for entry in fonts.ttflist}
    for path in font_manager.findSystemFonts():
        if path not in listed:  # installed after matplotlib made its list, which it keeps
            with suppress(Exception):  # a broken font is none
                fonts.addfont(path)
    found = _first_chinese(entry for entry in fonts.ttflist if entry.fname not in listed)
    if found is None:
        log.warning("no font with Chinese characters found: labels in the PNG are English (try fonts-noto-cjk)")
    return found


def _first_chinese(entries: Iterable[Any]) -> str | None:
    """The first font that has the labels' characters, likely ones tried first: opening a font costs a millisecond."""

    def rank(entry: Any) -> int:
        return next((n for n, name in enumerate(_CHINESE_FONTS) if name in entry.name), len(_CHINESE_FONTS))

    needed = {ord(character) for panel in PANELS for character in panel.title[0]}
    tried = set()
    for entry in sorted(entries, key=rank):
        if entry.fname in tried or "LastResort" in entry.name.replace(" ", ""):  # boxes for every character
            continue
        tried.add(entry.fname)
        with suppress(Exception):  # the list may name a font that was removed since
            font = FT2Font(entry.fname)
            if all(map(font.get_char_index, needed)):
                return str(entry.name)
    return None


def _svg(panel: Panel, runs: Sequence[RunLog]) -> str:
    """One panel as an element of an HTML page."""
    figure = Figure(figsize=(5.2, 3.5), layout="constrained")
    draw_panel(figure.subplots(), panel, runs, bilingual=True)
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = file.getvalue()
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text[text.index("<svg") :])  # HTML knows them
    return re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{panel.key}-", text)  # unique on the page


_HEAD = (
    "运行<br>run",
    "步数<br>steps",
    "最后的<br>train_loss",
    "最低的<br>eval_loss",
    "在第几步<br>at step",
    "中位 tokens/s<br>median",
    "用时<br>elapsed",
)


def _row(run: RunLog) -> list[str]:
    """A run's figures for the table, after its name."""
    losses, (steps, evaluated) = run.series("loss")[1], run.series("eval_loss")
    speeds, seconds = (values[np.isfinite(values)] for _, values in map(run.series, ("tokens_per_second", "seconds")))
    last = "—" if not len(losses) else f"{losses[-1]:.4f}" if np.isfinite(losses[-1]) else "NaN"
    lowest = ["—", "—"]
    if np.isfinite(evaluated).any():
        best = int(np.nanargmin(evaluated))
        lowest = [f"{evaluated[best]:.4f}", f"{steps[best]:,.0f}"]
    speed = f"{np.median(speeds):,.0f}" if len(speeds) else "—"
    return [f"{run.last_step:,}", last, *lowest, speed, _clock(float(seconds[-1])) if len(seconds) else "—"]


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


_STYLE = """
body{font:16px/1.6 system-ui,"PingFang SC","Noto Sans CJK SC","Microsoft YaHei",sans-serif;max-width:1180px;
margin:0 auto;padding:1rem;color:#222;background:#fff}
h1{font-size:1.5rem}.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.9rem}
th,td{border:1px solid #ccc;padding:.3rem .6rem;text-align:right;white-space:nowrap}
th{background:#f2f5f2;font-weight:600;line-height:1.3}
th:first-child,td:first-child{text-align:left;white-space:normal;overflow-wrap:anywhere;min-width:6rem}
i{display:inline-block;width:1.6em;height:.3em;margin-right:.5em;vertical-align:middle}
main{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,460px),1fr));gap:1.5rem;margin-top:1.5rem}
svg{width:100%;height:auto;overflow:visible}
svg text{font-family:system-ui,"PingFang SC","Noto Sans CJK SC","Microsoft YaHei",sans-serif!important}
@media print{body{max-width:none}main{grid-template-columns:1fr 1fr}}
"""


def to_html(runs: Sequence[RunLog]) -> str:
    """The panels and a table, whose colours are the legend, as one HTML page that needs nothing beside it."""
    rows = []
    for run, colour in zip(runs, COLOURS, strict=False):
        name = f'<i style="background:{colour}"></i>{html.escape(run.name)}'
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in (name, *_row(run))) + "</tr>")
    head = "".join(f"<th>{cell}</th>" for cell in _HEAD)
    # laid out for wide letters first: no reader's font needs more room
    with matplotlib.rc_context(_settings(_LATIN, _chinese_font())), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the browser will have it
        panels = "\n".join(_svg(panel, runs) for panel in PANELS)
    body = "\n".join(rows)
    return f"""<!doctype html>
<html lang="zh-CN"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>杏林：训练曲线 training curves</title><style>{_STYLE}</style></head><body>
<h1>训练曲线 training curves</h1>
<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>
{body}
</tbody></table></div>
<main>{panels}</main>
</body></html>
"""


def _stem(given: str, default: str) -> str:
    """The path of both files without their endings; in a folder they are called curves."""
    if not given or given.endswith("/") or Path(given).is_dir():
        return str(Path(given or default, "curves"))
    return re.sub(r"\.(png|html)$", "", given)


def plot(config: PlotConfig) -> None:
    """Draw the runs, write the picture and the page, and print where they are.

    Raises:
        UserError: as `open_runs`, more runs than can be told apart, or a place that cannot be written to.
    """
    runs = open_runs(config.runs)
    if not 1 <= len(runs) <= len(COLOURS):
        raise UserError(f"xinglin plot draws 1 to {len(COLOURS)} runs over each other, got {len(runs)}")
    stem = _stem(config.output_path, config.runs[0] if len(runs) == 1 else ".")
    picture, page = Path(f"{stem}.png"), Path(f"{stem}.html")
    try:
        draw(runs, picture)
        with atomic_write(page) as file:
            file.write(to_html(runs))
    except OSError as error:
        where = picture.parent
        raise UserError(f"output_path {stem}: cannot write in {where} ({error.strerror}); give another place") from None
    print(f"{picture}\n{page}")
