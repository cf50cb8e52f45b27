"""The public functions hand on the types of the functions they are given."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_types_flow_through_run_and_every_call(tmp_path):
    config = tmp_path / "pyrightconfig.json"
    checked = ROOT / "tests" / "typing" / "types_flow.py"
    config.write_text(
        f'{{"include": ["{checked}"], "typeCheckingMode": "strict",'
        f' "reportUnnecessaryTypeIgnoreComment": "error",'
        f' "extraPaths": ["{ROOT / "src"}"]}}'
    )
    checker = subprocess.run(  # noqa: S603  the type checker of this environment
        [sys.executable, "-m", "basedpyright", "--project", str(config)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": ""},
    )
    assert checker.returncode == 0, checker.stdout
