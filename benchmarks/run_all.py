"""Every benchmark with its defaults, one after the other: what ``make bench`` runs."""

import subprocess
import sys
from pathlib import Path


def main() -> None:
    folder = Path(__file__).resolve().parent
    for path in sorted(folder.glob("bench_*.py")):
        print(f"-- {path.stem}", flush=True)
        module = f"{folder.name}.{path.stem}"
        subprocess.run([sys.executable, "-m", module], cwd=folder.parent, check=True)


if __name__ == "__main__":
    main()
