"""How time and memory grow with the number of records: `data check`, deduplication alone, and `data export`.

    .venv/bin/python benchmarks/dataset/growth.py --data_path data/llama_data.json --sizes 10000 100000 1000000

Real records are enlarged: their clauses, in new combinations, about random diseases of the graph. A known share are
copies (2 %) and near copies (10 %, one character in fifty changed). Each task runs as a process of its own; wall time,
peak memory and the exponent fitted to them go to growth.json beside this file.
"""

import argparse
import json
import os
import platform
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from xinglin.dataset import formats
from xinglin.dataset.quality.detect import texts_of
from xinglin.knowledge.graph import load_cmekg

COPIES, NEAR_COPIES = 0.02, 0.10
_CHECK = """
from xinglin.dataset.quality.check import DataCheck, check_data
check_data(DataCheck({data!r}, output_dir={out!r}{more}))
"""
_DEDUP = """
from itertools import islice
from xinglin.dataset import formats
from xinglin.dataset.quality.detect import texts_of
from xinglin.dataset.quality.duplicates import Index, first_copies, signatures
from xinglin.dataset.quality.groups import Columns, clusters, whole_hashes
rows, columns = formats.read({data!r}), Columns()
with Index() as index:
    while wholes := [columns.add(texts_of(row.example))[0] for row in islice(rows, 1000)]:
        index.add(signatures(wholes))
    first, labels = first_copies(whole_hashes(columns))
    print(clusters(labels)[0], clusters(index.clusters(first))[0])
"""
_EXPORT = """
from xinglin.dataset.exports import DataExport, export_data
export_data(DataExport({data!r}, {out!r} + '/out.jsonl', 'openai'))
"""


_PEAK = """
print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])  # in KiB
"""


def enlarged(source: str, count: int, seed: int = 20) -> Iterator[dict[str, str]]:
    """Records in new combinations of a file's clauses, some of them copies of earlier ones."""
    order = random.Random(seed)
    names = sorted({disease.name for disease in load_cmekg().of_type("disease")})
    questions, answers = [], []
    for row in formats.read(source):
        texts = texts_of(row.example)
        questions += [clause for clause in re.split("[，。？；]", texts.asked) if len(clause) > 4]
        answers += [clause for clause in re.split("[，。；]", texts.answer) if len(clause) > 4]
    recent: list[dict[str, str]] = []
    for number in range(count):
        kind = order.random()
        if recent and kind < COPIES:
            record = order.choice(recent)
        elif recent and kind < COPIES + NEAR_COPIES:
            record = _nearly(order.choice(recent), order)
        else:
            asked = "，".join(order.sample(questions, 2))
            told = "，".join(order.sample(answers, order.randint(2, 5)))
            question = f"{order.choice(names)}患者，{asked}？"
            record = {"instruction": question, "input": "", "output": f"{told}，注意{order.choice(names)}。"}
            recent[number % 1000 : number % 1000 + 1] = [record]
        yield record


def _nearly(record: dict[str, str], order: random.Random) -> dict[str, str]:
    characters = list(record["output"])
    for place in order.sample(range(len(characters)), max(1, len(characters) // 50)):
        characters[place] = order.choice("一二三四五六七八九十")
    return record | {"output": "".join(characters)}


def measured(code: str) -> dict[str, float]:
    """Run Python code as a process of its own: seconds of wall time and peak memory in MiB."""
    started = time.perf_counter()
    # the peak is the process's own: rusage would count the memory of this one, which it is forked from
    done = subprocess.run([sys.executable, "-c", code + _PEAK], stdout=subprocess.PIPE, text=True, check=True)
    seconds = time.perf_counter() - started
    *said, peak = done.stdout.strip().split("\n")
    print("\n".join(said))
    return {"seconds": round(seconds, 2), "peak_mib": round(int(peak) / 1024)}


def exponent(sizes: list[int], values: list[float]) -> float:
    """The k of the least-squares fit values ~ sizes^k."""
    return round(float(np.polyfit(np.log(sizes), np.log(values), 1)[0]), 3)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_path", required=True, help="real instruction data to enlarge")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--base_model", default="", help="also time the check with this tokenizer")
    asked = parser.parse_args()
    tasks = {"check": _CHECK, "dedup": _DEDUP, "export": _EXPORT}
    if asked.base_model:
        tasks["check_with_tokens"] = _CHECK
    results: dict[str, dict[str, dict[str, float]]] = {name: {} for name in tasks}
    for size in asked.sizes:
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder) / "data.jsonl"
            with data.open("w", encoding="utf-8") as file:
                for record in enlarged(asked.data_path, size):
                    file.write(json.dumps(record, ensure_ascii=False) + "\n")
            for name, code in tasks.items():
                more = f", base_model={asked.base_model!r}" if name == "check_with_tokens" else ""
                row = measured(code.format(data=str(data), out=f"{folder}/{name}", more=more))
                results[name][str(size)] = row
                print(f"{name:<18} {size:>9,} {row['seconds']:>9.1f} s {row['peak_mib']:>6.0f} MiB", flush=True)
    contents = {"machine": f"{platform.machine()}, {os.cpu_count()} CPUs", "copies": COPIES, "near_copies": NEAR_COPIES}
    contents["tasks"] = results
    if len(asked.sizes) > 1:
        seconds = {name: [rows[str(size)]["seconds"] for size in asked.sizes] for name, rows in results.items()}
        contents["exponent"] = {name: exponent(asked.sizes, values) for name, values in seconds.items()}
        contents["exponent_of_last_step"] = {
            name: exponent(asked.sizes[-2:], values[-2:]) for name, values in seconds.items()
        }
    (Path(__file__).parent / "growth.json").write_text(json.dumps(contents, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
