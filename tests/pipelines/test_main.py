"""`python -m pipelines` lists the commands."""

import json
import re
from pathlib import Path

from tiny_runs import python

import pipelines

TOP = Path(pipelines.__file__).parent
SCRIPT = """
import json, runpy, sys
runpy.run_module("pipelines", run_name="__main__")
print(json.dumps([name for name in sys.modules if name.partition(".")[0] in sys.argv[1:]]))
"""


def test_every_command_is_listed_with_its_description_and_nothing_is_imported(tmp_path):
    ended = python("-c", SCRIPT, "pipelines", "torch", "numpy", "tyro", cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    *lines, imported = ended.stdout.splitlines()
    listed = [match[1] for line in lines if (match := re.fullmatch(r"  (\w+) +\w.*", line))]
    runnable = {
        path.stem
        for path in TOP.glob("*.py")
        if 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")
    }
    assert listed == sorted(runnable - {"__main__"})
    assert json.loads(imported) == ["pipelines"]
