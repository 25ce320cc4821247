"""The curves of training runs: what a log holds, also a broken one, what is drawn of it, and where it goes."""

import json
import math
import re
import subprocess
import sys
import time
import warnings
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib import font_manager

from xinglin.cli import main
from xinglin.tuning import plot
from xinglin.tuning.panels import _curve, _limits, _scientific, _smoothed
from xinglin.tuning.runlog import open_runs, read_log


def make_run(folder, steps=40, *, every=1, evaluate=True):
    folder.mkdir(parents=True)
    with (folder / "log.jsonl").open("w", encoding="utf-8") as file:
        for step in range(every, steps * every + 1, every):
            line = {"step": step, "epoch": step / 10, "loss": 1 + 1 / step, "learning_rate": 3e-4 * (1 - step / steps)}
            line |= {"grad_norm": 0.8 + step % 3, "tokens_per_second": 500.0 + step % 5, "seconds": step * 2.0}
            file.write(json.dumps(line) + "\n")
            if evaluate and step % 10 == 0:
                line = {"step": step, "eval_loss": 1 + abs(step - 20) / 100, "eval_runtime": 3.1, "seconds": step * 2.1}
                file.write(json.dumps(line) + "\n")
    return folder


@pytest.fixture
def no_chinese_font(monkeypatch):
    latin = [entry for entry in font_manager.fontManager.ttflist if "DejaVu" in entry.name or "Last" in entry.name]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", latin)
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [])
    plot._chinese_font.cache_clear()
    yield
    plot._chinese_font.cache_clear()


def titles(figure):
    return [axes.get_title(loc="left") for axes in figure.axes]


def names(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_a_log_is_read_line_by_line(tmp_path):
    lines = read_log(make_run(tmp_path / "a", 20) / "log.jsonl")
    assert len(lines) == 22
    assert lines[9]["step"] == lines[10]["step"] == 10
    assert "loss" in lines[9] and lines[10]["eval_loss"] == 1.1
    assert read_log(tmp_path / "nothing.jsonl") == []


def test_a_last_line_cut_in_half_is_skipped_in_silence(tmp_path, caplog):
    path = make_run(tmp_path / "a", 5) / "log.jsonl"
    whole = read_log(path)
    for cut in (
        '{"step": 6, "lo',
        '{"step": 6, "name": "\u5fc3'.encode()[:-1].decode("utf-8", "surrogateescape"),
        "{}",
    ):
        path.write_bytes(path.read_bytes().split(b"{}")[0] + cut.encode("utf-8", "surrogateescape"))
        assert read_log(path) == whole
        path.write_text("".join(json.dumps(line) + "\n" for line in whole))
    assert not caplog.records


def test_a_broken_line_further_up_is_said(tmp_path, caplog):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo{"step": 3, "loss": 1.9}\n[]\n{"step": 4, "loss": 1.8}\n')
    assert [line["step"] for line in read_log(path)] == [1, 4]
    assert [record.getMessage().split("/")[-1] for record in caplog.records] == [
        "log.jsonl:2: not a line of a training log, left out",
        "log.jsonl:3: not a line of a training log, left out",
    ]


def test_a_resumed_run_drops_what_it_does_again(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps({"step": n, "loss": loss}) + "\n" for n, loss in [(10, 3), (20, 2), (30, 9)]))
    with path.open("a") as file:
        file.write('{"step": 20, "loss": 2.5}\n{"step": 20, "eval_loss": 2.4}\n')
    assert [tuple(line.values()) for line in read_log(path)] == [(10, 3), (20, 2.5), (20, 2.4)]


def test_what_is_no_number_is_nan(tmp_path):
    (tmp_path / "log.jsonl").write_text(
        '{"step": 1, "loss": 2.0, "grad_norm": NaN}\n{"step": 2, "loss": Infinity, "grad_norm": null}\n{"step": 3}\n'
    )
    (run,) = open_runs([tmp_path])
    steps, values = run.series("loss")
    assert steps.tolist() == [1, 2] and values[0] == 2.0 and math.isnan(values[1])
    assert np.isnan(run.series("grad_norm")[1]).all()
    assert len(run.series("eval_loss")[0]) == 0
    assert run.last_step == 3


def test_names_are_as_long_as_it_takes_to_tell_runs_apart(tmp_path, monkeypatch):
    for name in ("x/a/r8", "x/b/r8", "y/b/r8", "基线-r8"):
        make_run(tmp_path / name, 2)
    monkeypatch.chdir(tmp_path / "基线-r8")
    runs = open_runs(["../x/a/r8/", "../x/b/r8", "../y/b/r8", ".", tmp_path / "基线-r8"])
    assert [run.name for run in runs] == ["a/r8", "x/b/r8", "y/b/r8", "基线-r8"]


def test_long_curves_are_smoothed_around_each_place_and_short_ones_are_not():
    short = np.arange(30.0)
    assert _smoothed(short, np.nanmean) is short
    line = np.arange(60.0)
    assert _smoothed(line, np.nanmean)[10:50].tolist() == line[10:50].tolist()
    assert _smoothed(line, np.nanmean)[0] == 1.5
    spike = np.where(line == 30, 1e9, 1.0)
    assert (_smoothed(spike, np.nanmedian) == 1).all()
    gap = np.where(line >= 40, np.nan, 2.0)
    assert np.array_equal(_smoothed(gap, np.nanmean), gap, equal_nan=True)


def test_a_long_run_is_thinned():
    steps, values = np.arange(100_000.0), np.tile([1.0, 2.0, 3.0, np.nan], 25_000)
    values[50_000:60_000] = np.nan
    curve = _curve(steps, values, np.nanmedian)
    assert curve.thinned and len(curve.steps) == 400
    assert curve.steps[0] == 124.5 and curve.steps[-1] == 99_874.5
    assert (curve.low[0], curve.middle[0], curve.high[0]) == (1, 2, 3)
    assert np.isnan(curve.middle[200:240]).all() and np.isnan(curve.low[200:240]).all()
    same = _curve(steps[:400], values[:400], np.nanmean)
    assert not same.thinned and np.array_equal(same.middle, values[:400], equal_nan=True)


@pytest.mark.parametrize(
    ("curves", "from_zero", "limits"),
    [
        ([[3.0, 0.9]], False, (0, 3.15)),  # 0 is near
        ([[3.0, 2.0]], False, (1.95, 3.05)),  # from 0 it would be flattened
        ([[3.0, 2.0]], True, (0, 3.15)),
        ([[2.0, 2.0]], False, (0, 2.1)),
        ([[0.0]], True, (0, 1)),
        ([], True, (0, 1)),
    ],
)
def test_the_axis_shows_the_course(curves, from_zero, limits):
    assert _limits([np.array(one) for one in curves], from_zero) == pytest.approx(limits)


def test_a_spike_does_not_flatten_the_curve():
    values = 2 + np.arange(100) / 100
    assert _limits([np.where(values == 2.5, 1000, values)], False)[1] < 6


@pytest.mark.parametrize(("rate", "text"), [(3e-4, "3e-4"), (2.5e-5, "2.5e-5"), (3 * 1e-4, "3e-4"), (0.0, "0")])
def test_learning_rates_read_as_people_write_them(rate, text):
    assert _scientific(rate, 0) == text


def test_the_figure_has_four_panels_and_the_runs_names(tmp_path):
    runs = open_runs([make_run(tmp_path / name) for name in ("基线-r8", "_own", "lr$3e-4$x")])
    figure = plot._figure(runs, bilingual=True)
    assert titles(figure) == [
        "损失 loss (nats per target token)",
        "学习率 learning rate",
        "梯度范数 gradient norm",
        "速度 tokens/s",
    ]
    assert names(figure) == ["基线-r8", "_own", "lr$3e-4$x"]
    assert {axes.get_xlabel() for axes in figure.axes} == {"步 optimizer step"}
    loss = figure.axes[0]
    assert [text.get_text() for text in loss.get_legend().get_texts()] == [
        "训练，滑动平均 train_loss, running mean",
        "原始值 as logged",
        "验证 eval_loss",
        "↑ 最高 max 2 (step 1)",
    ]
    dashed = [line for line in loss.lines if line.get_linestyle() == "--"]
    assert [line.get_color() for line in dashed] == list(plot.COLOURS[:3])
    assert dashed[0].get_xydata().tolist() == [[10, 1.1], [20, 1.0], [30, 1.1], [40, 1.2]]
    assert {line.get_color() for line in figure.axes[1].lines} == set(plot.COLOURS[:3])


def test_what_was_not_logged_is_left_out(tmp_path):
    run = make_run(tmp_path / "a", 1, evaluate=False)
    (run / "log.jsonl").write_text('{"step": 1, "loss": 2.0, "grad_norm": NaN}\n')
    figure = plot._figure(open_runs([run]), bilingual=True)
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["训练 train_loss"]
    assert [[text.get_text() for text in axes.texts] for axes in figure.axes[1:]] == [["没有记录 not logged"]] * 3
    assert main(["plot", str(run)]) == 0


def test_a_spike_beyond_the_axis_is_named(tmp_path):
    run = make_run(tmp_path / "a", 100)
    with (run / "log.jsonl").open("a") as file:
        file.write('{"step": 101, "loss": 1.0, "grad_norm": 5000.5}\n')
    axes = plot._figure(open_runs([run]), bilingual=False).axes[2]
    assert axes.get_ylim()[1] < 10
    assert axes.get_legend().get_texts()[-1].get_text() == "max 5000 (step 101)"


class Page(HTMLParser):
    """What a page shows and refers to."""

    def __init__(self, text):
        super().__init__()
        self.cells, self.svg_texts, self.ids, self.addresses, self._in = [], [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self._in = tag if tag != "i" else self._in
        if tag == "td":
            self.cells.append("")
        for name, value in attributes:
            self.ids += [value] if name == "id" else []
            self.addresses += [value] if name in ("src", "href", "xlink:href") else []

    def handle_data(self, data):
        if self._in == "td":
            self.cells[-1] += data.strip()
        if self._in == "text" and data.strip():
            self.svg_texts.append(data)


def test_one_run_goes_beside_its_log(tmp_path, capsys):
    run = make_run(tmp_path / "基线 <r8>", 40)
    assert main(["plot", str(run)]) == 0
    assert capsys.readouterr().out == f"{run}/curves.png\n{run}/curves.html\n"
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    text = (run / "curves.html").read_text("utf-8")
    page = Page(text)
    assert page.cells == ["基线 <r8>", "40", "1.0250", "1.0000", "20", "502", "0:01:24"]
    for label in ("损失 loss (nats per target token)", "学习率 learning rate", "速度 tokens/s", "步 optimizer step"):
        assert label in page.svg_texts
    assert text.count("<svg") == 4


def test_the_page_needs_nothing_beside_it(tmp_path):
    text = plot.to_html(open_runs([make_run(tmp_path / "a"), make_run(tmp_path / "b")]))
    assert not re.search(r"https?:|//\w|@import|<script|<link|url\([^#]", text)
    page = Page(text)
    assert page.addresses and all(address.startswith("#") for address in page.addresses)
    assert len(page.ids) == len(set(page.ids))
    assert {address[1:] for address in page.addresses} | set(re.findall(r"url\(#([^)]+)\)", text)) <= set(page.ids)
    assert text == plot.to_html(open_runs([tmp_path / "a", tmp_path / "b"]))


def test_several_runs_go_to_the_working_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "runs" / "a", 40)
    make_run(tmp_path / "runs" / "基线, r8", 30, evaluate=False)
    assert main(["plot", "runs/a", "runs/基线, r8"]) == 0
    assert capsys.readouterr().out == "curves.png\ncurves.html\n"
    page = Page((tmp_path / "curves.html").read_text("utf-8"))
    assert page.cells[::7] == ["a", "基线, r8"]
    assert page.cells[7:] == ["基线, r8", "30", "1.0333", "—", "—", "502", "0:01:00"]


@pytest.mark.parametrize(
    ("given", "stem"), [("out/two", "out/two"), ("two.v1.png", "two.v1"), ("out/", "out/curves"), ("a", "a/curves")]
)
def test_output_path(tmp_path, monkeypatch, given, stem):
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "a", 3)
    make_run(tmp_path / "b", 3)
    assert main(["plot", "a", "b", "--output_path", given]) == 0
    assert (tmp_path / f"{stem}.png").is_file() and (tmp_path / f"{stem}.html").is_file()


def test_a_diverged_run_shows_as_nan(tmp_path):
    run = make_run(tmp_path / "a", 5, evaluate=False)
    with (run / "log.jsonl").open("a") as file:
        file.write('{"step": 6, "loss": NaN, "seconds": 3599.7}\n')
    assert Page(plot.to_html(open_runs([run]))).cells == ["a", "6", "NaN", "—", "—", "502", "1:00:00"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing"], "missing: no such folder"),
        (["a", "file"], "file: not a folder; give the run's folder"),
        (["empty"], "empty: holds no log.jsonl, which xinglin finetune writes"),
        (["new"], "new/log.jsonl: nothing is logged yet"),
        (["a", "--output_path", "file/x"], "output_path file/x: cannot write in file (File exists)"),
        (["a", *(f"n{n}" for n in range(8))], "draws 1 to 8 runs over each other, got 9"),
        ([], "runs"),
        (["--runs", "[]"], "got 0"),
    ],
)
def test_errors_take_one_line(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    for name in ("a", *(f"n{n}" for n in range(8))):
        make_run(tmp_path / name, 2)
    (tmp_path / "empty").mkdir()
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "log.jsonl").write_text('{"step": 1')
    (tmp_path / "file").touch()
    assert main(["plot", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_without_a_chinese_font_the_picture_is_english(tmp_path, no_chinese_font, caplog):
    runs = open_runs([make_run(tmp_path / "基线")])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot.draw(runs, tmp_path / "curves.png")
        plot.draw(runs, tmp_path / "curves.png")
        page = Page(plot.to_html(runs))
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert [record.getMessage() for record in caplog.records] == [
        "no font with Chinese characters found: labels in the PNG are English (try fonts-noto-cjk)"
    ]
    figure = plot._figure(runs, bilingual=False)
    assert titles(figure) == ["loss (nats per target token)", "learning rate", "gradient norm", "tokens/s"]
    assert names(figure) == ["基线"]
    assert "损失 loss (nats per target token)" in page.svg_texts


def test_with_a_chinese_font_no_character_is_missing(tmp_path):
    if plot._chinese_font() is None:
        pytest.skip("no Chinese font on this machine")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        plot.draw(open_runs([make_run(tmp_path / "基线-r8")]), tmp_path / "curves.png")
    assert not said


def test_a_hundred_thousand_lines_are_quick_and_the_page_is_small(tmp_path):
    run = make_run(tmp_path / "a", 100_000)
    started = time.process_time()
    assert main(["plot", str(run)]) == 0
    assert time.process_time() - started < 3
    assert (run / "curves.html").stat().st_size < 300_000


def test_eight_long_runs_make_a_small_page(tmp_path):
    runs = [make_run(tmp_path / f"run{n}", 399) for n in range(8)]  # the most that is drawn point by point
    assert main(["plot", *map(str, runs), "--output_path", str(tmp_path / "eight")]) == 0
    assert (tmp_path / "eight.html").stat().st_size < 1_000_000


def test_options_stay_light():
    code = "import sys, xinglin.tuning.options; sys.exit(bool({'torch', 'matplotlib', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_help_names_the_runs(capsys):
    with pytest.raises(SystemExit):
        main(["plot", "--help"])
    assert "RUN [RUN…]" in capsys.readouterr().out
