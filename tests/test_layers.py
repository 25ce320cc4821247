"""Imports go one way, and the command line starts without torch."""

import ast
import subprocess
import sys
from pathlib import Path

ORDER = """
    errors console records tables assets config remote prompts tokenizer knowledge dataset backbone tuning inference
    evaluation export serve demo cli
""".split()  # noqa: SIM905
PACKAGE = Path(__file__).parent.parent / "xinglin"


def imports(path: Path) -> set[str]:
    """Layers of xinglin that a file imports anywhere, functions included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "xinglin":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("xinglin."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("xinglin.")}
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}: relative import"
    return found


def steps_backwards(package: Path) -> list[str]:
    wrong = []
    for path in sorted(package.rglob("*.py")):
        layer = path.relative_to(package).parts[0].removesuffix(".py")
        if layer in ("__init__", "__main__"):
            assert imports(path) <= {"cli"}
            continue
        assert layer in ORDER, f"{path} belongs to no layer"
        wrong += [f"{path.name}: {other}" for other in imports(path) if ORDER.index(other) > ORDER.index(layer)]
    return wrong


def test_imports_go_one_way():
    assert steps_backwards(PACKAGE) == []


def test_a_step_backwards_is_seen(tmp_path):
    (tmp_path / "records.py").write_text("def f():\n    from xinglin.tuning import train\n")
    assert steps_backwards(tmp_path) == ["records.py: tuning"]


def test_command_line_starts_without_torch():
    code = (
        "import sys, xinglin, xinglin.cli as cli\n"
        "cli.main(['--help'])\n"
        "for c in cli.COMMANDS.values(): cli._load(c.config)\n"
        "assert cli.main(['finetune', '--no_such_flag']) == 2\n"
        "print([m for m in sys.modules if m in ('torch', 'transformers', 'peft')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert done.stdout.strip().splitlines()[-1] == "[]", done.stderr


def test_every_command_names_something_real():
    from xinglin.cli import COMMANDS, _load

    for command in COMMANDS.values():
        assert callable(_load(command.run))
        assert _load(command.config).__doc__
