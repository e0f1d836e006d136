"""What the programs in this folder have in common."""

import importlib.machinery
import importlib.util
import os
import subprocess
import sys
from pathlib import Path


def neighbour(name):
    """Another program of this folder as a module."""
    loader = importlib.machinery.SourceFileLoader(name, str(Path(__file__).resolve().parent / name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    loader.exec_module(module)
    return module


def interop():
    """The module of scripts/interop, which installs clients and builds the broker; the folder that it installs into is there."""
    module = neighbour("interop")
    module.SCRATCH.mkdir(parents=True, exist_ok=True)
    return module


def midge():
    """The path of the broker: what MIDGE names, or the release build, which is made if need be."""
    return os.environ.get("MIDGE") or interop().broker_command()[0]


def apt_install(*packages):
    """Installs with apt-get; if its lists are too old for that, with new ones."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    if subprocess.run(command, env=environment, stdout=sys.stderr).returncode != 0:
        subprocess.run(["apt-get", "update"], env=environment, check=True, stdout=sys.stderr)
        subprocess.run(command, env=environment, check=True, stdout=sys.stderr)
