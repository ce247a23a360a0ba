"""The commands `alignzoo plugin` (new, check, list), `alignzoo list` and `alignzoo card`."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from alignzoo.cli import scaffold
from alignzoo.config import catalogue, side_by_side
from alignzoo.config.registry import Registry
from alignzoo.errors import UserError

if TYPE_CHECKING:
    from alignzoo.testing.conformance import Property


def options(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("alignzoo list", description="What there is to choose from.")
    parser.add_argument("group", nargs="?", help="one group alone, such as algorithm")
    parser.add_argument("--family", help="algorithms of this family")
    parser.add_argument("--needs", action="append", default=[], metavar="WHAT", help="algorithms that need pairs, reward, ...")
    parser.add_argument("--without", action="append", default=[], metavar="WHAT", help="and no reference, value, ...")
    args, registry = _parsed(parser, argv)
    if not (args.family or args.needs or args.without):
        catalogue.show_list(registry, args.group)
    elif args.group in (None, "algorithm"):
        side_by_side.show_algorithms(registry, args.family, args.needs, args.without)
    else:
        raise UserError(f"--family, --needs and --without are of algorithms: leave {args.group} out")
    return 0


def card(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("alignzoo card", description="The card of a plugin or preset.")
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--compare", nargs="+", metavar="NAME", help="equations and settings of these algorithms, side by side")
    args, registry = _parsed(parser, argv)
    if args.compare:
        side_by_side.show_equations(registry, [*args.names, *args.compare])
    elif not args.names:
        raise UserError("alignzoo card NAME: which? `alignzoo list` shows all names")
    else:
        for name in args.names:
            catalogue.show_card(registry, name)
    return 0


def main(argv: Sequence[str]) -> int:
    """0: done, every property holds; 1: one does not; 2: a user's mistake, as everywhere."""
    parser = argparse.ArgumentParser(
        "alignzoo plugin", description="Plugins: make one, check one, list all.", allow_abbrev=False
    )
    actions = parser.add_subparsers(dest="action", required=True)
    new = actions.add_parser("new", help="a small, complete, working plugin", allow_abbrev=False)
    new.add_argument("name")
    new.add_argument("--kind", required=True, help=", ".join(scaffold.kinds()))
    new.add_argument("--package", action="store_true", help="one that can be installed, with its entry point")
    new.add_argument("--into", type=Path, default=Path("."), metavar="FOLDER", help="where; none: the current folder")
    check = actions.add_parser("check", help="does it keep the contract?", allow_abbrev=False)
    check.add_argument("target", metavar="PLUGIN", help="NAME, GROUP=NAME, a file or folder, or an installed package")
    check.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings that it needs, such as reward.path=...")
    check.add_argument("--skip", action="append", default=[], metavar="PROPERTY", help="leave this one out")
    actions.add_parser("list", help="where each comes from, and whether it can be used")
    args, registry = _parsed(parser, argv)
    if args.action == "new":
        return _new(args)
    if args.action == "check":
        return _check(args)
    catalogue.show_plugins(registry)
    return 0


def _parsed(parser: argparse.ArgumentParser, argv: Sequence[str]) -> tuple[argparse.Namespace, Registry]:
    """The arguments, and the registry with the local folder that `plugins_dir=` among them names."""
    folders = [text.removeprefix("plugins_dir=") for text in argv if text.startswith("plugins_dir=")]
    args = parser.parse_args([text for text in argv if not text.startswith("plugins_dir=")])
    return args, Registry(folders[-1] if folders else None)


def _new(args: argparse.Namespace) -> int:
    files = scaffold.make(args.name, args.kind, args.into, args.package)
    root = files[-2].parent if args.package else files[0].parent
    for path in files:
        print(path)
    use = f"pip install {root}" if args.package else f"use it with plugins_dir={args.into}"
    print(f"\nNext: alignzoo plugin check {root}; pytest {root}; {use}")
    return 0


def _check(args: argparse.Namespace) -> int:
    from alignzoo.testing import conformance

    console = Console(highlight=False, markup=False, soft_wrap=True)
    broken = 0
    with tempfile.TemporaryDirectory(prefix="alignzoo-check-") as folder:
        for subject in conformance.subjects(args.target, Path(folder), args.overrides):
            properties = conformance.asked(subject, args.skip)
            origin = subject.plugin.origin if subject.plugin else ""
            console.print(f"{subject.name} ({origin}): {len(properties)} properties")
            for prop in properties:
                broken += _show(console, prop, conformance.failure(prop, subject))
    if broken:
        console.print(f"\n{broken} {'property does' if broken == 1 else 'properties do'} not hold")
    for name in args.skip:
        console.print(f"skipped: {name}")
    return 1 if broken else 0


def _show(console: Console, prop: Property, failure: Exception | None) -> int:
    from alignzoo.testing.expect import RepeatedFailure

    text = f"as {failure.earlier}" if isinstance(failure, RepeatedFailure) else prop.meaning.splitlines()[0]
    mark = "FAIL" if failure else "pass"
    console.print(f"  {mark}  {prop.name:<16} {text}", style="red" if failure else None)
    if failure is None:
        return 0
    if isinstance(failure, UserError):
        console.print(f"        refused: {failure}")
    elif not isinstance(failure, RepeatedFailure):
        for name in ("expected", "found", "cause"):
            label = "likely cause" if name == "cause" else name
            console.print(f"        {label}: {getattr(failure, name)}")
    return 1
