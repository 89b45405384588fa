"""The Triton Inference Server of the wheel `nvidia-pytriton`, as a command to start: no Docker, no GPU.

The wheel carries the server's binary, its libraries and the Python backend, and nothing else; so an ONNX file is
served here by a generated `model.py` (`adapters.triton.python_model`). This module finds the parts, says what is
missing and how to get it, and gives the command line and environment. Starting and supervising is the caller's work.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from adapters.server import Address, ServerError

PYTHON: Final = (3, 11)
"""The Python whose stub and libraries the project is built for."""

LIBPYTHON: Final = "libpython3.11.so.1.0"

_CHECK_TIMEOUT_S: Final = 30.0

_ELSEWHERE: Final = (
    "Or use a Triton container instead of the embedded one: "
    "docker run --rm -p 127.0.0.1:8000:8000 -p 127.0.0.1:8001:8001 nvcr.io/nvidia/tritonserver:25.06-py3 "
    "tritonserver --model-control-mode=explicit --model-repository=/tmp, "
    "then start Penstock with `--triton 127.0.0.1:8001`."
)


class EmbeddedUnavailable(ServerError):
    """The embedded Triton cannot run here; the message says what to install, or how to use a container."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason} {_ELSEWHERE}")


@dataclass(frozen=True, slots=True)
class EmbeddedTriton:
    """The parts of an embedded Triton, found on this machine.

    `executables` is the folder of this Python's own executable: the stub takes its packages (onnxruntime, numpy)
    from the environment of the first `python3` on PATH, and from nowhere else.
    """

    binary: Path
    libraries: Path
    backend: Path
    stub: Path
    libpython: Path
    executables: Path

    @classmethod
    def find(cls) -> EmbeddedTriton:
        """The parts in the running interpreter's environment. Raises EmbeddedUnavailable."""
        if sys.platform != "linux":
            where = f"{platform.system()} on {platform.machine()}"
            raise EmbeddedUnavailable(f"The embedded Triton runs on Linux only, and this is {where}.")
        if sys.version_info[:2] != PYTHON:
            raise EmbeddedUnavailable(
                f"The embedded Triton needs Python {PYTHON[0]}.{PYTHON[1]}, "
                f"and this is Python {platform.python_version()}: make the environment with python3.11."
            )
        spec = importlib.util.find_spec("pytriton")
        if spec is None or spec.origin is None:
            raise EmbeddedUnavailable(
                "The package nvidia-pytriton, which brings the Triton binary, is not installed in "
                f"{sys.prefix}: `{sys.executable} -m pip install nvidia-pytriton` (it needs glibc 2.35 or newer, "
                f"and this is {' '.join(platform.libc_ver())})."
            )
        package = Path(spec.origin).parent
        return cls(
            binary=_part(package / "tritonserver/bin/tritonserver"),
            libraries=_part(package.parent / "nvidia_pytriton.libs"),
            backend=_part(package / "tritonserver/backends/python"),
            stub=_part(package / "tritonserver/python_backend_stubs/3.11/triton_python_backend_stub"),
            libpython=find_libpython(libpython_folders()),
            executables=Path(sys.executable).parent,
        )

    def check(self) -> None:
        """Start the binaries far enough to see that every library is found. Raises EmbeddedUnavailable."""
        for program, arguments in ((self.binary, ("--help",)), (self.stub, ())):
            try:
                done = subprocess.run(
                    [program, *arguments],
                    env=self.environment(os.environ),
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    timeout=_CHECK_TIMEOUT_S,
                    check=False,
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                raise EmbeddedUnavailable(f"{program} does not start: {error}.") from error
            said = done.stderr.decode(errors="replace")
            # The loader's own words for a missing library or a glibc that is too old.
            if "error while loading shared libraries" in said or "not found (required by" in said:
                raise EmbeddedUnavailable(
                    f"{program.name} does not start: {said.strip().splitlines()[0]} "
                    "(on an older system use Debian 12, Ubuntu 22.04 or newer)."
                )

    def prepare(self, folder: Path) -> Path:
        """Lay out the backend directory that Triton wants in `folder`, and return it. Safe to repeat."""
        target = folder / "python"
        target.mkdir(parents=True, exist_ok=True)
        for part in (*self.backend.glob("*.so"), *self.backend.glob("*.py"), self.stub):
            copy = target / part.name
            fresh = target / f".{part.name}.{os.getpid()}"
            shutil.copy2(part, fresh)
            # By rename: a server that runs from this folder keeps the file it has open.
            fresh.replace(copy)
        return folder

    def command(
        self,
        *,
        repository: Path,
        backends: Path,
        grpc: Address,
        http: Address,
        metrics: Address,
        exit_timeout_s: int = 5,
        load_at_start: Sequence[str] = (),
    ) -> list[str]:
        """The command line. `backends` is what `prepare` returned; `load_at_start` are served names."""
        return [
            str(self.binary),
            f"--model-repository={repository}",
            f"--backend-directory={backends}",
            "--model-control-mode=explicit",
            *(f"--load-model={name}" for name in load_at_start),
            # A version that does not load must not take the others with it.
            "--exit-on-error=false",
            # Configurations are complete; completing them would start every Python model twice.
            "--disable-auto-complete-config",
            f"--grpc-address={grpc.host}",
            f"--grpc-port={grpc.port}",
            f"--http-address={http.host}",
            f"--http-port={http.port}",
            f"--metrics-address={metrics.host}",
            f"--metrics-port={metrics.port}",
            "--allow-gpu-metrics=false",
            f"--exit-timeout-secs={exit_timeout_s}",
            # By default one model that loads or failed to load makes the whole server "not ready".
            "--strict-readiness=false",
            "--log-info=false",
            # Longest start of one Python model, seconds: importing onnxruntime on a busy laptop takes its time.
            "--backend-config=python,stub-timeout-seconds=120",
        ]

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """The environment to start it in, on top of `base`."""
        kept = {name: value for name, value in base.items() if name not in {"PYTHONPATH", "PYTHONHOME", "LD_PRELOAD"}}
        return kept | {
            "PATH": os.pathsep.join([str(self.executables), base.get("PATH", os.defpath)]),
            "LD_LIBRARY_PATH": os.pathsep.join([str(self.libraries), str(self.libpython.parent)]),
            # onnxruntime would report to its makers, and leave a file in the temporary folder.
            "ORT_DISABLE_TELEMETRY": "1",
            # One model instance is one thread; numpy's own pools only wait.
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }


def libpython_folders() -> list[Path]:
    """Where the shared library of the running Python may lie, the most fitting first."""
    configured = sysconfig.get_config_var("LIBDIR") or "/usr/lib"
    triplet = sysconfig.get_config_var("MULTIARCH") or "x86_64-linux-gnu"
    folders = [configured, f"{configured}/{triplet}", f"{sys.base_prefix}/lib", f"/usr/lib/{triplet}", "/usr/lib64"]
    return [Path(folder) for folder in folders]


def find_libpython(folders: Sequence[Path]) -> Path:
    """The shared library of Python 3.11 in the first of `folders` that has it. Raises EmbeddedUnavailable."""
    for folder in folders:
        if (folder / LIBPYTHON).is_file():
            return folder / LIBPYTHON
    raise EmbeddedUnavailable(
        f"The embedded Triton needs the shared library {LIBPYTHON}, which is in none of "
        f"{', '.join(map(str, folders))}. On Debian and Ubuntu: `apt-get install libpython3.11`; with pyenv: "
        "`PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install 3.11`."
    )


def _part(path: Path) -> Path:
    if not path.exists():
        raise EmbeddedUnavailable(
            f"{path} is missing from the installed nvidia-pytriton: "
            f"`{sys.executable} -m pip install --force-reinstall --no-deps nvidia-pytriton` (version 0.7.0 has it)."
        )
    return path
