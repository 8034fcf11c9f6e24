"""Removes from Python what a projection must not use: files, sockets, processes, clocks and
randomness.

A component has no files, sockets, processes, clocks or randomness: it imports only the contract,
and the functions of WASI that CPython calls trap. But a trap names no line. So each function of
Python that would call such a function of WASI raises an exception instead, and the reason of the
parked event names the line.
"""

from __future__ import annotations

import builtins
import datetime
import gc
import linecache
import os
import random
import sys
import time
import types
from typing import Any, Callable

MODULES = (
    "abc argparse array ast base64 binascii bisect builtins calendar cmath codecs collections "
    "collections.abc colorsys contextlib contextvars copy copyreg csv dataclasses datetime "
    "decimal difflib dis enum errno fnmatch fractions functools gc graphlib hashlib heapq hmac "
    "html html.entities html.parser inspect io ipaddress itertools json json.decoder "
    "json.encoder json.scanner keyword linecache locale logging math numbers opcode operator "
    "os os.path pathlib pickle pprint quopri random re reprlib secrets shlex socket "
    "statistics string struct sys textwrap threading time timeit token tokenize traceback "
    "types typing unicodedata urllib urllib.parse uuid warnings weakref zlib zoneinfo "
    "encodings.ascii encodings.cp1252 encodings.idna encodings.latin_1 encodings.punycode "
    "encodings.utf_8 encodings.utf_8_sig encodings.utf_16 encodings.utf_32 encodings.hex_codec "
    "encodings.base64_codec encodings.rot_13 "
    "_strptime _pydecimal _pydatetime sre_compile sre_parse string.templatelib "
    "collections.abc importlib importlib.abc importlib.machinery importlib.util "
    "importlib.resources tempfile subprocess asyncio"
).split()
"""The modules that a script can import; some of them only to get a clear error."""

_ROOT_FUNCTIONS = (
    "access chdir chmod chown close fdatasync fstat fsync ftruncate getcwd getcwdb getrandom "
    "link listdir lseek lstat mkdir open pipe pread pwrite read readlink readv remove rename "
    "replace rmdir scandir sendfile stat statvfs symlink system truncate umask unlink utime "
    "write writev popen fork kill waitpid times cpu_count get_terminal_size isatty dup dup2 "
    "posix_fallocate posix_fadvise"
).split()

_sealed = False


class Unavailable(OSError):
    """Something that a projection does not have."""


def _refuse(name: str, why: str, error: Callable[[str], BaseException]) -> Callable[..., Any]:
    def refused(*_: Any, **__: Any) -> Any:
        raise error(f"{name}: {why}")

    refused.__name__ = name.rpartition(".")[2]
    return refused


_NO_FILES = "a projection has no files; keep state in tables"
_NO_SOCKETS = "a projection has no network"
_NO_CLOCK = "a projection has no clock; use event.time"
_NO_RANDOM = (
    "a projection has no randomness; use random.Random(seed) with a seed from the event, or "
    "event.id"
)


def _runtime(text: str) -> BaseException:
    return RuntimeError(text)


def _unavailable(text: str) -> BaseException:
    return Unavailable(text)


def seal() -> None:
    """Does it, once for each instance."""
    global _sealed
    if _sealed:
        return
    _sealed = True
    sys.addaudithook(_audit_hook())
    _seal_files()
    _seal_clock()
    _seal_random()
    _seal_processes()
    _seal_imports()
    linecache.updatecache = lambda *_, **__: []  # type: ignore[assignment]
    linecache.checkcache = lambda *_, **__: None  # type: ignore[assignment]
    sys.stdout = Printer("info")  # type: ignore[assignment]
    sys.stderr = Printer("warn")  # type: ignore[assignment]
    sys.stdin = None  # type: ignore[assignment]
    builtins.input = _refuse("input", "a projection has no terminal", _runtime)
    builtins.breakpoint = _refuse("breakpoint", "a projection has no terminal", _runtime)


_AUDITED_SOCKETS = (
    "__new__ bind connect getaddrinfo gethostbyaddr gethostbyname gethostname getnameinfo "
    "getservbyname getservbyport sendmsg sendto sethostname"
).split()


class _RefusedEvent(str):
    """The name of an audit event. A comparison with it raises an exception."""

    __slots__ = ("why",)

    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        raise Unavailable(f"{str(self)}: {self.why}")  # type: ignore[attr-defined]


def _audit_hook() -> Callable[..., Any]:
    """The audit hook that stops C code from opening files, for instance to show the line of a
    syntax error.

    Python calls the hook also for frequent events, such as :func:`id` or reading the frame of a
    traceback. So the hook is a lookup in a dict, which calls no Python code unless the name of the
    event is in the dict. If the name is there, the comparison with the name raises the exception.
    """
    refused = [("open", _NO_FILES)]
    refused += [(f"socket.{name}", _NO_SOCKETS) for name in _AUDITED_SOCKETS]
    events = {}
    for name, why in refused:
        event = _RefusedEvent(name)
        event.why = why  # type: ignore[attr-defined]
        events[event] = True
    return events.get


def _seal_files() -> None:
    root = sys.modules.get("posix") or os
    refused = {name: _refuse(f"os.{name}", _NO_FILES, _unavailable) for name in _ROOT_FUNCTIONS}
    for module in (root, os):
        for name, function in refused.items():
            if hasattr(module, name):
                setattr(module, name, function)
    no_files = _refuse("open", _NO_FILES, _unavailable)
    builtins.open = no_files
    for name in ("io", "_io", "_pyio"):
        module = sys.modules.get(name)
        if module is not None:
            for function in ("open", "open_code", "FileIO"):
                if hasattr(module, function):
                    setattr(module, function, no_files)
    path = sys.modules.get("posixpath")
    if path is not None:
        for name in ("exists", "isfile", "isdir", "islink", "lexists", "ismount"):
            setattr(path, name, lambda *_: False)
        for name in ("getsize", "getmtime", "getatime", "getctime", "samefile", "realpath"):
            setattr(path, name, _refuse(f"os.path.{name}", _NO_FILES, _unavailable))
    os.environ = types.MappingProxyType({})  # type: ignore[assignment]
    os.getenv = lambda _, default=None: default  # type: ignore[assignment]


def _seal_clock() -> None:
    for name in (
        "time time_ns monotonic monotonic_ns perf_counter perf_counter_ns process_time "
        "process_time_ns thread_time thread_time_ns clock_gettime clock_gettime_ns clock_getres "
        "get_clock_info"
    ).split():
        if hasattr(time, name):
            setattr(time, name, _refuse(f"time.{name}", _NO_CLOCK, _runtime))
    time.sleep = _refuse("time.sleep", "a projection cannot wait; use a timer", _runtime)
    for name in ("gmtime", "localtime", "ctime"):
        setattr(time, name, _with_time(name, getattr(time, name), 0))
    for name in ("strftime", "asctime"):
        setattr(time, name, _with_time(name, getattr(time, name), name == "strftime"))

    class date(datetime.date):
        """A date; without ``today``."""

        today = classmethod(_refuse("date.today", _NO_CLOCK, _runtime))  # type: ignore[arg-type]

    class datetime_(datetime.datetime):
        """A date and time; without ``now``."""

        now = classmethod(_refuse("datetime.now", _NO_CLOCK, _runtime))  # type: ignore[arg-type]
        utcnow = classmethod(_refuse("datetime.utcnow", _NO_CLOCK, _runtime))  # type: ignore
        today = classmethod(_refuse("datetime.today", _NO_CLOCK, _runtime))  # type: ignore

    for own, name in ((date, "date"), (datetime_, "datetime")):
        own.__name__ = own.__qualname__ = name
        own.__module__ = "datetime"
    datetime.date = date  # type: ignore[misc]
    datetime.datetime = datetime_  # type: ignore[misc]


def _with_time(name: str, function: Any, place: int) -> Callable[..., Any]:
    """A function of the module `time` that must be given the time."""

    def given(*arguments: Any) -> Any:
        if len(arguments) <= place or arguments[place] is None:
            raise RuntimeError(f"time.{name}: {_NO_CLOCK}")
        return function(*arguments)

    given.__name__ = name
    return given


def _seal_random() -> None:
    refused = _refuse("random", _NO_RANDOM, _runtime)
    for name in dir(random):
        if callable(getattr(random, name)) and name.islower() and not name.startswith("_"):
            setattr(random, name, _refuse(f"random.{name}", _NO_RANDOM, _runtime))
    os.urandom = _refuse("os.urandom", _NO_RANDOM, _runtime)
    random.SystemRandom = refused  # type: ignore[misc,assignment]
    random._urandom = os.urandom  # type: ignore[attr-defined]

    class Random(random.Random):
        """A generator that must be given its seed."""

        def __init__(self, seed: Any = None) -> None:
            if seed is None:
                raise RuntimeError(f"random.Random(): {_NO_RANDOM}")
            super().__init__(seed)

        def seed(self, a: Any = None, version: int = 2) -> None:
            if a is None:
                raise RuntimeError(f"random.seed(): {_NO_RANDOM}")
            super().seed(a, version)

    random.Random = Random  # type: ignore[misc]
    for module, names in (
        ("uuid", ("uuid1", "uuid4", "uuid6", "uuid7", "getnode")),
        (
            "secrets",
            ("token_bytes", "token_hex", "token_urlsafe", "choice", "randbelow", "randbits"),
        ),
    ):
        found = sys.modules.get(module)
        for name in names if found is not None else ():
            if hasattr(found, name):
                setattr(found, name, _refuse(f"{module}.{name}", _NO_RANDOM, _runtime))


def _seal_processes() -> None:
    no_threads = _refuse("threads", "a projection has no threads", _runtime)
    for module, names in (
        ("_thread", ("start_new_thread", "start_new", "start_joinable_thread")),
        ("threading", ("_start_new_thread", "_start_joinable_thread")),
    ):
        found = sys.modules.get(module)
        for name in names if found is not None else ():
            if hasattr(found, name):
                setattr(found, name, no_threads)
    no_processes = _refuse("subprocess", "a projection cannot start processes", _unavailable)
    found = sys.modules.get("subprocess")
    for name in ("Popen", "run", "call", "check_call", "check_output") if found else ():
        setattr(found, name, no_processes)
    no_sockets = _refuse("socket", _NO_SOCKETS, _unavailable)
    found = sys.modules.get("socket")
    if found is not None:
        for name in (
            "socket create_connection create_server getaddrinfo gethostbyname gethostname "
            "getfqdn socketpair"
        ).split():
            setattr(found, name, no_sockets)
    found = sys.modules.get("asyncio")
    if found is not None:
        no_loop = _refuse("asyncio", "a projection has no event loop", _runtime)
        for name in ("run", "new_event_loop", "get_event_loop"):
            setattr(found, name, no_loop)
    for name in ("_exit", "abort"):
        if hasattr(os, name):
            setattr(os, name, _refuse(f"os.{name}", "a projection cannot exit", _runtime))


class _Finder:
    """Refuses the import of all that is not loaded."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
        raise ModuleNotFoundError(
            f"no module named {name!r}: a script has the SDK and parts of the standard library "
            "only",
            name=name,
        )


_HIDDEN = ("posix", "_socket", "_posixsubprocess", "_datetime", "_random", "select")
"""Modules that have the functions which the replaced functions would call. Scripts cannot import
these modules."""


def _seal_imports() -> None:
    sys.path.clear()
    sys.path_hooks.clear()
    sys.path_importer_cache.clear()
    sys.meta_path[:] = [_Finder]  # type: ignore[list-item]
    for name in _HIDDEN:
        if name in sys.modules:
            sys.modules[name] = None  # type: ignore[assignment]


class Printer:
    """A text file whose lines go to the log of the plugin."""

    encoding = "utf-8"
    errors = "strict"
    closed = False
    _LINE_MAX = 8_192

    def __init__(self, level: str) -> None:
        self._level = level
        self._parts: list[str] = []

    def write(self, text: str) -> int:
        """Logs complete lines, and keeps the rest until the line is complete."""
        *lines, rest = text.split("\n")
        for line in lines:
            self._parts.append(line)
            self._emit()
        if rest:
            self._parts.append(rest)
        return len(text)

    def _emit(self) -> None:
        from . import log

        line = "".join(self._parts)
        self._parts = []
        if len(line) > self._LINE_MAX:
            line = line[: self._LINE_MAX] + "…"
        log._log(self._level, line)

    def flush(self) -> None:
        """Does nothing: a line is logged when it is complete."""

    def isatty(self) -> bool:
        """A log is not a terminal."""
        return False

    def writable(self) -> bool:
        """The log can be written to."""
        return True


def preload() -> None:
    """Imports all modules that scripts may use, while the component is built."""
    import importlib

    for name in MODULES:
        try:
            importlib.import_module(name)
        except ImportError:
            pass
    # These functions import modules at their first use. The modules must be imported now.
    datetime.datetime.strptime("2020-01-01", "%Y-%m-%d")
    datetime.datetime(2020, 1, 1).strftime("%A %B")
    "ä".encode("idna")
    gc.collect()
