"""One photo, from the shell to the answer: whole processes, ours and others'.

python benchmarks/start.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from side_by_side import Measured, commands_in_turns, run_command, table

HERE = Path(__file__).parent
PHOTO = str(HERE.parent / "sample_images/rocket.jpg")
PYTHON, OURS = sys.executable, [sys.executable, "-m", "fcnconv"]
WARM = "fcnconv classify, warm"

if __name__ == "__main__":
    cold = Measured()
    for _ in range(2):
        with tempfile.TemporaryDirectory() as cache:
            seconds, cold.peak = run_command([*OURS, "classify", PHOTO], XDG_CACHE_HOME=cache)
            cold.seconds.append(seconds)
    measured = commands_in_turns(
        {
            WARM: [*OURS, "classify", PHOTO],
            "torchvision script": [PYTHON, str(HERE / "torchvision_script.py"), PHOTO],
            "timm script": [PYTHON, str(HERE / "timm_script.py"), PHOTO],
            "fcnconv --version": [*OURS, "--version"],
            "fcnconv --help": [*OURS, "--help"],
            "python -c 'import torchvision'": [PYTHON, "-c", "import torchvision"],
        },
        rounds=7,
    )
    measured["fcnconv classify, first use of the model"] = cold
    table(measured, WARM)
    seconds = {name: m.median for name, m in measured.items()}
    print(f"\nWarm against the torchvision script: {seconds[WARM] / seconds['torchvision script']:.3f}.")
    base = seconds["python -c 'import torchvision'"]
    for name in ("fcnconv --version", "fcnconv --help"):
        print(f"`{name}` against the import of torchvision: {seconds[name] / base:.3f}.")
