"""Time and peak memory of `xinglin data build`: the default, and everything that the graph gives.

    python benchmarks/dataset/build.py

Each run is a process of its own; the graph lies in the cache already. The median of three runs goes to build.json.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_CODE = """
from xinglin.dataset.build import DataBuild, write_data
write_data(DataBuild({out!r}, num_records={number}))
print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])
"""


def measured(number: int) -> tuple[float, float, dict[str, int]]:
    """(seconds, peak MiB, records by split) of one build."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "llama_data.json"
        began = time.perf_counter()
        code = _CODE.format(out=str(out), number=number)
        done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
        seconds = time.perf_counter() - began
        summary = json.loads(out.with_suffix(".summary.json").read_text("utf-8"))
        return seconds, int(done.stdout.split()[-1]) / 1024, summary["records"]


def main() -> None:
    """Measure and write."""
    results = {}
    for name, number in (("default", 8000), ("everything", 0)):
        runs = [measured(number) for _ in range(3)]
        results[name] = {
            "records": runs[0][2],
            "seconds": round(statistics.median(run[0] for run in runs), 1),
            "peak_mib": round(statistics.median(run[1] for run in runs)),
        }
        print(name, results[name])
    contents = {"machine": f"{platform.machine()}, {os.cpu_count()} CPUs", "builds": results}
    (Path(__file__).parent / "build.json").write_text(json.dumps(contents, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
