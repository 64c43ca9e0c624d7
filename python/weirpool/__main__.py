"""``python -m weirpool``: the demo, and the doctor."""

import argparse
import sys
from typing import NoReturn

from weirpool import _doctor
from weirpool.demo import command, options
from weirpool.demo.errors import DemoError


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def make_parser() -> Parser:
    parser = Parser(prog="python -m weirpool", description="A process pool whose submit() waits at a bound.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="watch memory while many threads feed files to a few processes",
        description="Threads read the files of a folder and submit them; workers compress and hash each; every digest "
        "is checked. Progress and memory are shown, figures follow. It needs Linux.",
    )
    options.add_arguments(demo)
    doctor = commands.add_parser(
        "doctor",
        help="say which engine runs here, and why",
        description="Says which engine runs tasks, weirpool's own or the standard library's pool, what it needs of the "
        "system and what of that is there, and whether it runs a task. The exit code is 0 if it does.",
    )
    _doctor.add_arguments(doctor)
    return parser


def main(arguments: list[str] | None = None) -> int:
    parser = make_parser()
    given = parser.parse_args(arguments)
    if given.command is None:
        parser.print_help()
        return 0
    if given.command == "doctor":
        return _doctor.main(given)
    try:
        asked = options.from_arguments(given)
    except DemoError as error:
        parser.error(str(error))
    return command.main(asked)


if __name__ == "__main__":
    sys.exit(main())
