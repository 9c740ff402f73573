"""Fill the disk under a training, and take its directory's writability away: it ends, and what was saved before stands.

A small tmpfs is mounted in a namespace of its own (``unshare``; Linux, root or user namespaces) and trained in until it
is full: once so that a save finds no room, once so that rows and logs do not; then one is mounted read-only.
``python scripts/faults_disk.py`` prints one JSON object as the last line; exit code 1 where something was lost.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

COMMAND = "import sys; from jaxlab.cli import main; sys.exit(main())"
CONFIG = str(Path(__file__).resolve().parents[1] / "configs/digits_cnn.py")
QUICK = ["--config.train.eval_every=20", "--config.train.checkpoint_every=10", "--config.train.log_every=1"]
LIMIT, SOON = 180, 10  # seconds after which a training that hangs is told to end, and is killed


def in_tmpfs(megabytes: int, script: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script in a fresh tmpfs, whose path is $D."""
    with tempfile.TemporaryDirectory() as folder:
        mount = f"mount -t tmpfs -o size={megabytes}m tmpfs {folder} || exit 9\nexport D={folder}\n{script}"
        command = [
            "unshare",
            "--map-root-user",
            "--mount",
            "timeout",
            f"--kill-after={SOON}",
            str(LIMIT),
            "sh",
            "-c",
            mount,
        ]
        return subprocess.run(command, capture_output=True, text=True, check=False)


def train(*more: str) -> str:
    """Return the shell command of a training in $D/run."""
    return " ".join([f"'{sys.executable}' -c '{COMMAND}' train --config={CONFIG} --workdir=$D/run", *QUICK, *more])


EVALUATE = f"'{sys.executable}' -c '{COMMAND}' evaluate --workdir=$D/run --split=valid --step=latest --no_plots"


def full_at_a_save() -> dict[str, Any]:
    """Train where a few checkpoints fit, until something else takes the room."""
    wait = "for i in $(seq 600); do [ -d $D/run/checkpoints/20 ] && break; sleep 0.1; done"
    fill = f"({wait}; head -c 1G /dev/zero > $D/ballast 2>/dev/null) &"
    command = train("--config.train.steps=100000", "--config.train.keep=20")
    done = in_tmpfs(64, f"{fill} {command}; echo code $?; wait; rm $D/ballast; {EVALUATE}; echo code $?")
    return verdict("disk full at a save", done, ["code 1", "code 0"])


def too_small_from_the_start() -> dict[str, Any]:
    """Train where the checkpoints that stand at once do not fit: refused before the first step."""
    done = in_tmpfs(3, f"{train()}; echo code $?; test -d $D/run; echo code $?")
    return verdict("disk too small for the run", done, ["code 2", "code 1"])


def read_only() -> dict[str, Any]:
    """Train into a directory that cannot be written."""
    done = in_tmpfs(24, f"mount -o remount,ro $D && {train()}; echo code $?")
    return verdict("read-only directory", done, ["code 1"])


def verdict(fault: str, done: subprocess.CompletedProcess[str], expected: list[str]) -> dict[str, Any]:
    """Return the row; a loss is another exit code, or a traceback."""
    codes = [line for line in done.stdout.splitlines() if line.startswith("code ")]
    said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    lost = codes != expected or "Traceback" in done.stderr
    if lost:
        print(done.stdout, done.stderr, sep="\n", file=sys.stderr)
    return {"fault": fault, "runs": 1, "losses": int(lost), "said": said[0] if said else ""}


def run() -> list[dict[str, Any]]:
    """Return a row a fault."""
    return [full_at_a_save(), too_small_from_the_start(), read_only()]


def main() -> int:
    """Run and print the rows."""
    rows = run()
    print(json.dumps({"rows": rows}))
    return int(any(row["losses"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
