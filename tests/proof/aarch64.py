"""
Run Python as on a 64-bit Arm machine: Debian's qemu and Python, and numpy and scipy of the versions that run this.

    python tests/proof/aarch64.py FOLDER -c "import platform; print(platform.machine())"

FOLDER is where everything is downloaded and unpacked, 300 MB; nothing is installed. It needs Debian's apt-get and
dpkg-deb, pip, and their packages' servers; the exit status is 69 where it lacks one of them, and stderr says which.
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
PACKAGES = "python3-minimal", "libpython3-stdlib", "libstdc++6"
PLATFORMS = [f"manylinux{name}_aarch64" for name in ("2014", "_2_27", "_2_28")]
ROOT = Path(__file__).parents[2]


def done(*command: str | Path, folder: Path) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder)
    except FileNotFoundError:
        sys.exit(unavailable(f"there is no {command[0]}"))
    except subprocess.CalledProcessError as error:
        sys.exit(unavailable(f"{Path(command[0]).name}: {error.stderr.strip()[-500:]}"))


def unavailable(reason: str) -> int:
    print(reason, file=sys.stderr)
    return UNAVAILABLE


def emulator(folder: Path) -> str:
    """The path of qemu, of this system or downloaded."""
    found = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    if found is None:
        done("apt-get", "-qq", "download", "qemu-user-static", folder=folder)
        (package,) = folder.glob("qemu-user-static*.deb")
        found = str(folder / "usr" / "bin" / "qemu-aarch64-static")
        done("sh", "-c", f"dpkg-deb --fsys-tarfile {package.name} | tar -x ./usr/bin/{Path(found).name}", folder=folder)
    return found


def python(folder: Path) -> Path:
    """The path of a Python for Arm, in a folder that has all that it needs of a system."""
    root, state = folder / "root", folder / "apt"
    (state / "lists" / "partial").mkdir(parents=True)
    (state / "archives" / "partial").mkdir(parents=True)
    (state / "status").touch()
    # Lists and a status of its own: what this system has and may install stays as it is.
    options = ["APT::Architecture=arm64", "APT::Architectures::=arm64", f"Dir::State::Lists={state / 'lists'}",
               f"Dir::State::status={state / 'status'}", f"Dir::Cache={state}"]  # fmt: skip
    apt = ["apt-get", "-qq", *(word for option in options for word in ("-o", option))]
    done(*apt, "update", folder=folder)
    done(*apt, "--yes", "--no-install-recommends", "--download-only", "install", *PACKAGES, folder=folder)
    for package in state.glob("archives/*.deb"):
        done("dpkg-deb", "--extract", package, root, folder=folder)
    return (root / "usr" / "bin" / "python3").resolve()


def libraries(folder: Path, python_version: str) -> Path:
    """A folder with numpy and scipy for Arm."""
    wanted = [f"{name}=={version(name)}" for name in ("numpy", "scipy")]
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    done(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", *platforms,
         "--python-version", python_version, "--target", "site", *wanted, folder=folder)  # fmt: skip
    return folder / "site"


def main(folder: str, *arguments: str) -> int:
    place = Path(folder).resolve()
    place.mkdir(parents=True, exist_ok=True)
    qemu, program = emulator(place), python(place)
    site = libraries(place, program.name.removeprefix("python"))
    # What is pure Python, such as pytest, comes from this environment.
    paths = site, ROOT, sysconfig.get_path("purelib")
    environment = os.environ | {
        "PYTHONHOME": str(program.parents[1]),
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return subprocess.run([qemu, "-L", place / "root", program, *arguments], env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
