"""Installs the dependencies named in pyproject.toml, and the extras given as arguments.

So that the venv is filled before the extension is compiled, and only when
pyproject.toml changes.
"""

import subprocess
import sys
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
wanted = list(project["dependencies"])
for extra in sys.argv[1:]:
    wanted += project["optional-dependencies"][extra]
sys.exit(subprocess.call([sys.executable, "-m", "pip", "install", "-q", *wanted]))
