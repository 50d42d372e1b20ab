"""
Build the wheel, install it in an environment of its own, leave the checkout,
and see that C{twistd} finds both plugins and the command runs.

Run by C{tox run -e packaging}; the argument is a directory to work in.
"""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys
import zipfile


def main(work: str) -> None:
    checkout = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    shutil.rmtree(work, ignore_errors=True)
    os.makedirs(work)
    dist = os.path.join(work, "dist")
    subprocess.run([sys.executable, "-m", "build", "--outdir", dist, checkout], check=True)
    (wheel,) = glob.glob(os.path.join(dist, "*.whl"))
    names = zipfile.ZipFile(wheel).namelist()
    beside = ("tests/", "bench/", "faults/", "fuzz/", "twisted/__init__")
    unwanted = [name for name in names if name.startswith(beside)]
    unwanted += [name for name in names if name == "twisted/plugins/__init__.py"]
    assert not unwanted, f"these do not belong into the wheel: {unwanted}"
    for needed in ("twisted/plugins/relaytunnel_dropin.py", "relaytunnel/py.typed"):
        assert needed in names, f"{needed} is not in the wheel"
    (sdist,) = glob.glob(os.path.join(dist, "*.tar.gz"))
    listed = subprocess.run(
        ["tar", "tzf", sdist], check=True, capture_output=True, text=True
    ).stdout
    assert "/tests/test_floors.py" in listed, "the tests are not in the source distribution"

    environment = os.path.join(work, "environment")
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    binaries = os.path.join(environment, "bin")
    subprocess.run([os.path.join(binaries, "pip"), "install", "-q", wheel], check=True)
    elsewhere = os.path.join(work, "elsewhere")
    os.mkdir(elsewhere)
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def said(*command: str) -> str:
        return subprocess.run(
            command, check=True, capture_output=True, text=True, cwd=elsewhere, env=clean
        ).stdout

    plugins = said(os.path.join(binaries, "twistd"), "--help")
    for plugin in ("relay", "agent"):
        assert f"\n    {plugin} " in plugins, f"twistd does not name {plugin}:\n{plugins}"
        assert "--config" in said(os.path.join(binaries, "twistd"), plugin, "--help")
    assert said(os.path.join(binaries, "relaytunnel"), "--version").startswith("relaytunnel ")
    said(os.path.join(binaries, "relaytunnel"), "demo", "--once")
    print(f"{os.path.basename(wheel)}: installed elsewhere, both plugins found, the demo works")


if __name__ == "__main__":
    main(sys.argv[1])
