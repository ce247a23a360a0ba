"""Processes that die before a change to a file, whichever: a fork of this one that is told of all of them."""

import os
import signal
import sys

from alignzoo.engine import checkpoint

WRITES = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate")


def in_child(folder, run, before_change):
    """Run in a fork that calls `before_change(what)` before each change to a file of the run folder; whether it was killed."""
    child = os.fork()
    if child == 0:
        try:
            _watch(folder, before_change)
            run()
            os._exit(0)
        finally:
            os._exit(3)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.waitstatus_to_exitcode(status) == 0, "the child failed by itself"
    return False


def killed(folder, run, at):
    """Run in a child that kills itself before the first change for which `at(what)` holds; whether it did."""

    def die(what):
        if at(what):
            os.kill(os.getpid(), signal.SIGKILL)

    return in_child(folder, run, die)


def changes(folder, run):
    """What it does to files, in order."""
    told = folder.with_name(f"{folder.name}.told")

    def tell(what):
        with told.open("a") as file:
            file.write(f"{what}\n")

    assert not in_child(folder, run, tell)
    every = told.read_text().split("\n")[:-1]
    told.unlink()
    return every


def some(names, parts, stride):
    """The places of a fixed sample: the first name with each of the `parts`, which must be there, and every so many of all."""
    first = {next((place for place, name in enumerate(names) if part in name), part) for part in parts}
    assert not (absent := [part for part in first if isinstance(part, str)]), f"not watched: {absent} in {names}"
    return sorted({*first, *range(0, len(names), stride)})


def killed_at(folder, run, count):
    """Run in a child that kills itself before the `count`th change, from 0 on; what that was, or "" where there are fewer."""
    reader, writer = os.pipe()
    seen = []

    def at(what):
        seen.append(what)
        if len(seen) > count:
            os.write(writer, what.encode())
        return len(seen) > count

    killed(folder, run, at)
    os.close(writer)
    with open(reader, "rb") as told:
        return told.read().decode()


def contents(folder):
    return tuple((str(p.relative_to(folder)), p.read_bytes() if p.is_file() else b"") for p in sorted(folder.rglob("*")))


def _watch(folder, before_change):
    """Python's audit events for files, and the syncs, which have none. Hooks stay for good: only a child may install one."""
    busy = []

    def look(what):
        if not busy:
            busy.append(what)
            before_change(what)
            busy.clear()

    def hook(event, arguments):
        path = str(arguments[0]) if arguments else ""
        reads = event == "open" and not (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR))
        within = str(folder) in path or (
            event in ("os.remove", "os.rmdir") and arguments[1] != -1
        )  # rmtree names files by directory
        if event in WRITES and within and not reads:
            look(f"{event} {os.path.basename(path)}")

    def synced(handle):
        look("fsync")
        return sync(handle)

    def written(target, fill):
        write(target, fill)
        look(f"{target.name} is there")

    sync, write = os.fsync, checkpoint.write
    os.fsync, checkpoint.write = synced, written
    sys.addaudithook(hook)
