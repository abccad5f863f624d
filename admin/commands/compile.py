"""`penstock compile`: makes machine code of the hot path, by mypyc and a C compiler, for this environment and this source."""

import argparse
import io
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gateway import compiled

KEPT = 2  # of other states of the source: a server that runs one may import more of it

# Names that C compilers have for the system that they are on, and mypyc for attributes: `_unix`, a clock.
_NO_MACROS = ("-Uunix", "-U__unix")
# Calls between the modules need no table: nobody puts another library's function in place of one of these.
_BOUND = "-fno-semantic-interposition", "-Wl,-Bsymbolic"


def run(arguments: argparse.Namespace) -> int:
    place = compiled.place()
    if place.is_dir() and not arguments.force:
        print("The hot path is compiled already.")
        return 0
    if find_spec("mypyc") is None or find_spec("setuptools") is None:
        print("mypyc is not here: pip install 'mypy[mypyc]>=2.4'", file=sys.stderr)
        return 1
    began = time.monotonic()
    print(f"Compiling {len(compiled.MODULES)} modules …", flush=True)
    with tempfile.TemporaryDirectory(prefix="penstock-compile-") as name:
        work = Path(name)
        for source in compiled.sources():
            copy = work / source.relative_to(compiled.ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
        _build(work, work / "out")
        arrived = place.with_name(f"{place.name}.{os.getpid()}")
        shutil.copytree(work / "out", arrived)
        shutil.rmtree(place, ignore_errors=True)
        arrived.rename(place)
    others = sorted((one for one in place.parent.iterdir() if one != place), key=lambda one: one.stat().st_mtime)
    for old in others[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    print(f"Compiled in {time.monotonic() - began:.0f} s.")
    return 0


def _build(work: Path, out: Path) -> None:
    """Compiles the copy of the source in `work`."""
    from mypyc.build import mypycify  # noqa: PLC0415 — not everybody has it

    setuptools = import_module("setuptools")
    os.chdir(work)
    paths = [f"{name.replace('.', '/')}.py" for name in compiled.MODULES]
    options = ["--config-file=", "--follow-imports=silent", "--ignore-missing-imports", "--no-warn-unused-ignores"]
    said = io.StringIO()
    try:
        with redirect_stdout(said):  # advice on what could be faster still, for who works on it
            made = mypycify(
                [*options, *paths], opt_level="3", debug_level="0", group_name=compiled.GROUP, multi_file=True
            )  # a file for each module: cores share them
    except SystemExit:
        print(said.getvalue(), file=sys.stderr)
        raise
    for extension in made:
        extension.extra_compile_args = [*extension.extra_compile_args, *_NO_MACROS, "-Wno-error", _BOUND[0]]
        extension.extra_link_args = ["-s", _BOUND[1]]
    command = setuptools.Distribution({"name": compiled.GROUP, "ext_modules": made}).get_command_obj("build_ext")
    command.build_lib, command.build_temp = str(out), str(work / "objects")
    command.ensure_finalized()
    command.build_extensions = partial(_at_once, command, command.build_extensions)
    command.run()


def _at_once(command: Any, one_by_one: Callable[[], None]) -> None:
    """setuptools compiles the files of an extension one after another."""
    compiler = command.compiler

    def compile_(sources: Sequence[str], *args: Any, **named: Any) -> list[str]:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            made = pool.map(lambda source: each([source], *args, **named), sources)
            return [object_ for objects in made for object_ in objects]

    each, compiler.compile = compiler.compile, compile_
    one_by_one()
