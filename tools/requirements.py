"""Prints the requirements that pyproject.toml gives for what is named: `build`, an extra, or a dependency group."""

import sys
import tomllib
from pathlib import Path


def main(names: list[str]) -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    groups = {
        "build": project["build-system"]["requires"],
        **project["project"]["optional-dependencies"],
        **project["dependency-groups"],
    }
    for name in names:
        print(*groups[name], sep="\n")


main(sys.argv[1:])
