"""Every benchmark with its defaults, one after the other: what ``make bench`` runs.

One that fails, for want of a peer for instance, is named at the end and holds up none after it.
"""

import subprocess
import sys
from pathlib import Path


def main() -> None:
    folder = Path(__file__).resolve().parent
    failed = []
    for path in sorted(folder.glob("bench_*.py")):
        print(f"-- {path.stem}", flush=True)
        module = f"{folder.name}.{path.stem}"
        done = subprocess.run([sys.executable, "-m", module], cwd=folder.parent, check=False)
        if done.returncode != 0:
            failed.append(path.stem)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
