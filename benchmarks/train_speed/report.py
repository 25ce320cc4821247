"""The table in README.md and the plot, from what run.py measured."""

import re
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt


def table(results: dict[str, Any]) -> str:
    """The results in Markdown."""
    settings, limit = results["settings"], results["limit"]
    lines = [
        f"{results['date']}, {results['machine']}; base {settings['base']}, {settings['precision']}, "
        f"{settings['steps']} steps of {settings['batch_size']} records ({settings['data']}, template "
        f"{settings['template']}), padded passes of {settings['micro_batch_size']}, {settings['rounds']} rounds.",
        "",
        "| system | useful tokens/s: median (min–max) | × recipe | of the limit | peak memory | first, last loss "
        "| 10 epochs |",
        "|---|---|---|---|---|---|---|",
    ]
    for system in results["systems"]:
        speed, losses = system["useful_tokens_per_second"], system["loss_by_step"]
        lines.append(
            f"| {system['system']} | {speed['median']:.0f} ({speed['min']:.0f}–{speed['max']:.0f}) "
            f"| {system.get('ratio_to_alpaca_lora', float('nan')):.2f} | {system['share_of_matmul_limit']:.0%} "
            f"| {system['peak_memory_mb'] / 1000:.1f} GB | {losses[0]:.4f}, {losses[-1]:.4f} "
            f"| {system['hours_for_ten_epochs_of_8658']:.1f} h |"
        )
    lines += [
        "",
        f"The limit: {limit['useful_tokens_per_second']:.0f} useful tokens/s, from matmuls at "
        f"{limit['matmul_flops_per_second'] / 1e12:.2f} TFLOP/s (measured in the same run, at the base's shapes) and "
        f"{limit['flops_per_useful_token'] / 1e9:.3f} GFLOP a token. 10 epochs: "
        "what as many as the report's 8,658 records would take, were they all as long as these.",
    ]
    return "\n".join(lines)


def draw(results: dict[str, Any], path: Path) -> None:
    """Bars of speed with their range, the limit as a line."""
    systems = results["systems"][::-1]
    speeds = [system["useful_tokens_per_second"] for system in systems]
    names = [system["system"] for system in systems]
    middle = [speed["median"] for speed in speeds]
    around = [
        [speed["median"] - speed["min"] for speed in speeds],
        [speed["max"] - speed["median"] for speed in speeds],
    ]
    colours = ["tab:red" if name.startswith("Xinglin") else "tab:gray" for name in names]
    figure, axes = plt.subplots(figsize=(8, 0.6 + 0.36 * len(names)), layout="constrained")
    axes.barh(names, middle, xerr=around, color=colours, alpha=0.8, error_kw={"elinewidth": 1})
    axes.axvline(results["limit"]["useful_tokens_per_second"], color="black", linestyle="--", label="matmul limit")
    axes.set_xlabel("useful tokens per second")
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def write_report(results: dict[str, Any], folder: Path, device: str) -> None:
    """Print the table, put it into the folder's README.md if there is one, and draw the plot."""
    text = table(results)
    print(text)
    draw(results, folder / f"speed-{device}.png")
    readme = folder / "README.md"
    if readme.exists():
        begin, end = f"<!-- {device} -->", f"<!-- end of {device} -->"
        old = readme.read_text("utf-8")
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        readme.write_text(pattern.sub(lambda _: f"{begin}\n{text}\n{end}", old), "utf-8")
