r"""Installs what `make wheel` built into fresh environments, and runs the README's first example in each.

    python .ci/try_distributions.py dist                     # the wheel and the sdist, newest and lowest versions
    python .ci/try_distributions.py dist --only wheel-lowest

`lowest` takes the lowest version of each dependency that `pyproject.toml` allows, `newest` what the package index has,
but for what `--pin` names: a build of PyTorch without gigabytes of CUDA libraries.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CASES = [f"{kind}-{versions}" for kind in ("wheel", "sdist") for versions in ("newest", "lowest")]


def lowest() -> str:
    r"""Returns constraints to the lowest versions of `pyproject.toml`."""
    text = (ROOT / "pyproject.toml").read_text()
    found = re.findall(
        r'^  "([\w-]+)>=([\w.]+)"', text[: text.index("[project.optional-dependencies]")], flags=re.MULTILINE
    )
    return "".join(f"{name}=={version}\n" for name, version in found)


def commands() -> list[list[str]]:
    r"""Returns the commands of the README's first example."""
    readme = (ROOT / "README.md").read_text()
    block = next(b for b in re.findall(r"```bash\n(.*?)```", readme, flags=re.DOTALL) if "pyg-nas-np" in b)
    return [shlex.split(line) for line in block.splitlines()]


def write_tables(folder: Path) -> None:
    r"""Writes the files that the example names."""
    rows = [(d, w, a) for d in range(2, 12) for w in (64, 128, 256) for a in ("relu", "gelu")]
    lines = [f"{d},{w},{a},{d * w * w}" for d, w, a in rows]
    labels = [70 + d + w / 64 + (a == "gelu") for d, w, a in rows]
    header = "depth,width,activation,params"
    measured = [f"{line},{label}" for line, label in zip(lines, labels, strict=True)]
    (folder / "measured.csv").write_text("\n".join([f"{header},accuracy", *measured[::2]]))
    (folder / "pool.csv").write_text("\n".join([header, *lines[1::2]]))


def run(*words: str | Path, cwd: Path) -> None:
    r"""Runs a command that sees no other installation of the package, and stops where it fails."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    print("$", *words, flush=True)
    subprocess.run([str(word) for word in words], cwd=cwd, env=environment, check=True)


def attempt(case: str, dist: Path, folder: Path, pins: str) -> None:
    r"""Tries one distribution with one set of versions."""
    kind, _, versions = case.partition("-")
    (package,) = dist.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    venv.create(folder / "env", with_pip=True)
    programs = folder / "env" / ("Scripts" if sys.platform == "win32" else "bin")
    (folder / "constraints.txt").write_text(lowest() if versions == "lowest" else pins)
    run(
        programs / "python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--constraint",
        folder / "constraints.txt",
        package,
        cwd=folder,
    )
    write_tables(folder)
    for command in commands():
        run(programs / command[0], *command[1:], cwd=folder)
    backend = "from pyg_nas_np.ops import cpu; print('compiled kernels:', cpu.is_available())"
    run(programs / "python", "-c", backend, cwd=folder)


def main() -> None:
    r"""Tries all cases, each in a folder that is deleted afterwards."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dist", type=Path)
    parser.add_argument("--only", choices=CASES, action="append", help="repeat for several")
    parser.add_argument("--pin", action="append", default=[], help="a constraint beside the newest versions")
    options = parser.parse_args()
    pins = "".join(f"{pin}\n" for pin in options.pin)
    for case in options.only or CASES:
        print(f"== {case}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            attempt(case, options.dist.resolve(), Path(folder), pins)
    print("All work.")


if __name__ == "__main__":
    main()
