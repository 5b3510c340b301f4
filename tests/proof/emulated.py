"""
Run Python as on a machine of another architecture: Debian's qemu and Python, and numpy and scipy.

    python tests/proof/emulated.py arm64 FOLDER -c "import platform; print(platform.machine())"

``arm64`` has numpy and scipy of the versions that run this, from the package index; ``s390x``, which is big-endian and
has no wheels there, has Debian's, which may be older than mpsref supports. FOLDER is where everything is downloaded and
unpacked, 300 MB; nothing is installed. Where apt-get, dpkg-deb, pip or one of their servers is missing the exit status
is 69, and stderr says why.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path

UNAVAILABLE = 69  # EX_UNAVAILABLE of sysexits.h
QEMU = {"arm64": "qemu-aarch64-static", "s390x": "qemu-s390x-static"}
PACKAGES = {
    "arm64": ("python3-minimal", "libpython3-stdlib", "libstdc++6"),
    "s390x": ("python3-minimal", "libpython3-stdlib", "python3-numpy", "python3-scipy"),
}
PLATFORMS = [f"manylinux{name}_aarch64" for name in ("2014", "_2_27", "_2_28")]
ROOT = Path(__file__).parents[2]


def done(*command: str | Path, folder: Path) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder)
    except FileNotFoundError:
        unavailable(f"there is no {command[0]}")
    except subprocess.CalledProcessError as error:
        unavailable(f"{Path(command[0]).name}: {error.stderr.strip()[-500:]}")


def unavailable(reason: str) -> None:
    print(reason, file=sys.stderr)
    sys.exit(UNAVAILABLE)


def emulator(name: str, folder: Path) -> str:
    """The path of qemu, of this system or downloaded."""
    found = shutil.which(name)
    if found is None:
        found = str(folder / "usr" / "bin" / name)
        done("apt-get", "-qq", "download", "qemu-user-static", folder=folder)
        extract = f"dpkg-deb --fsys-tarfile qemu-user-static*.deb | tar -x ./usr/bin/{name}"
        done("sh", "-c", extract, folder=folder)
    return found


def python(architecture: str, folder: Path) -> Path:
    """The path of a Python of an architecture, in a folder that has all that it needs of a system."""
    root, state = folder / "root", folder / "apt"
    for part in "lists", "archives":
        (state / part / "partial").mkdir(parents=True)
    (state / "status").touch()
    # Lists and a status of its own: what this system has and may install stays as it is.
    options = [f"APT::Architecture={architecture}", f"APT::Architectures::={architecture}", f"Dir::Cache={state}",
               f"Dir::State::Lists={state / 'lists'}", f"Dir::State::status={state / 'status'}"]  # fmt: skip
    apt = ["apt-get", "-qq", *(word for option in options for word in ("-o", option))]
    done(*apt, "update", folder=folder)
    wanted = PACKAGES[architecture]
    done(*apt, "--yes", "--no-install-recommends", "--download-only", "install", *wanted, folder=folder)
    for package in state.glob("archives/*.deb"):
        done("dpkg-deb", "--extract", package, root, folder=folder)
    return (root / "usr" / "bin" / "python3").resolve()


def libraries(architecture: str, program: Path, folder: Path) -> Path:
    """A folder with numpy and scipy."""
    if architecture != "arm64":
        return program.parents[1] / "lib" / "python3" / "dist-packages"
    wanted = [f"{name}=={version(name)}" for name in ("numpy", "scipy")]
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    options = ["--no-deps", "--only-binary=:all:", *platforms, "--python-version", program.name.removeprefix("python")]
    done(sys.executable, "-m", "pip", "install", "--quiet", *options, "--target", "site", *wanted, folder=folder)
    return folder / "site"


def main(architecture: str, folder: str, *arguments: str) -> int:
    place = Path(folder).resolve()
    place.mkdir(parents=True, exist_ok=True)
    qemu, program = emulator(QEMU[architecture], place), python(architecture, place)
    # What is pure Python, such as pytest, comes from this environment.
    paths = libraries(architecture, program, place), ROOT, sysconfig.get_path("purelib")
    # Where Debian has BLAS and LAPACK, to which its alternatives would link.
    blas = sorted({path.parent for path in place.glob("root/usr/lib/*/*/lib[bl]*.so.3")})
    environment = os.environ | {
        "PYTHONHOME": str(program.parents[1]),
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "QEMU_SET_ENV": f"LD_LIBRARY_PATH={os.pathsep.join(map(str, blas))}",
    }
    return subprocess.run([qemu, "-L", place / "root", program, *arguments], env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
