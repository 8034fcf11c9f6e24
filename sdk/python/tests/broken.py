"""Broken scripts, and the message that each must give.

``REFUSED``: the upload is refused; the message begins with the file and the line.
``PARKED``: the event is parked; the message names file and line.
Each has a name, the text, the line, and a part of the message.
"""

_HEAD = """from lantern import *
t = Table("t", n=integer("sum"), s=text, j=json)
@projection(name="p", subscribes=["*"], on_failure="park-event")
def apply(event):
"""

_END = """
@projection(name="p", subscribes=["*"], on_failure="park-event")
def apply(event):
    pass
"""

REFUSED = [
    ("an open parenthesis", "x = (1,\n", 1, "'(' was never closed"),
    ("a closing bracket too many", "x = 1]\n", 1, "unmatched ']'"),
    ("a missing colon", "def f()\n    pass\n", 1, "expected ':'"),
    ("a wrong indentation", "x = 1\n  y = 2\n", 2, "unexpected indent"),
    ("a body that is missing", "def f():\nx = 1\n", 2, "expected an indented block"),
    ("tabs and spaces", "if True:\n\tx = 1\n        y = 2\n", 3, ""),
    ("text without an end", "x = 'abc\n", 1, "unterminated string literal"),
    ("documentation without an end", '"""abc\n\n', 1, "unterminated triple-quoted"),
    ("an f-string without an end", "x = f'{1'\n", 1, ""),
    ("a return outside of a function", "return 1\n", 1, "'return' outside function"),
    ("a break outside of a loop", "break\n", 1, "'break' outside loop"),
    ("a continue outside of a loop", "x = 1\ncontinue\n", 2, "'continue' not properly in loop"),
    ("a yield outside of a function", "yield 1\n", 1, "'yield' outside function"),
    ("an await outside of a function", "await x\n", 1, "'await' outside function"),
    ("a nonlocal of nothing", "def f():\n    nonlocal x\n", 2, "no binding for nonlocal"),
    ("a global after use", "def f():\n    x = 1\n    global x\n", 3, "assigned to before global"),
    ("a parameter twice", "def f(a, a):\n    pass\n", 1, "duplicate"),
    ("an assignment to a call", "f() = 1\n", 1, "cannot assign to function call"),
    ("an assignment to a literal", "1 = x\n", 1, "cannot assign to literal"),
    ("print as a statement", "print 'hello'\n", 1, "Missing parentheses in call to 'print'"),
    ("another language", "const x = 1;\n", 1, "invalid syntax"),
    ("a number with a leading zero", "x = 007\n", 1, "leading zeros"),
    ("a number with letters", "x = 12abc\n", 1, "invalid decimal literal"),
    ("a character that is none of Python's", "x = 1 ¤ 2\n", 1, "invalid character"),
    ("a quote of a word processor", "x = \u201cabc\u201d\n", 1, "invalid character"),
    ("an unknown future", "from __future__ import braces\n", 1, "not a chance"),
    ("a star import in a function", "def f():\n    from os import *\n", 2, "import * only allowed"),
    ("an escape that is none", "x = '\\N{no such name}'\n", 1, "unknown Unicode character name"),
    ("too many parentheses", "x = " + "(" * 300 + ")" * 300 + "\n", 1, "nested more than 50 deep"),
    ("deep nesting", "x = " + "-" * 100_000 + "1\n", 1, "nested more than 50 deep"),
    ("an unknown module", "import numpy\n", 1, "no module named 'numpy'"),
    ("an unknown module in a package", "import lantern.nothing\n", 1, "no module named 'lantern.nothing'"),
    ("an unknown name in a module", "from lantern import Tabel\n", 1, "cannot import name 'Tabel'"),
    ("a module that is another file", "import mine\n", 1, "no module named 'mine'"),
    ("an import of itself", "from . import x\n", 1, "ImportError"),
    ("a hidden module", "import posix\n", 1, "ModuleNotFoundError"),
    ("an unknown name", "from lantern import *\nx = Tabel('t')\n", 2, "name 'Tabel' is not defined"),
    ("a division by zero", "x = 1 / 0\n", 1, "ZeroDivisionError"),
    ("an exception", "raise ValueError('no')\n", 1, "ValueError: no"),
    ("an exit", "import sys\nsys.exit(1)\n", 2, "SystemExit"),
    ("no projection", "x = 1\n", 1, "defines no projection"),
    ("an empty file", "", 1, "defines no projection"),
    ("two projections", _END + _END, 0, ""),
    ("an argument of projection that is none", "from lantern import *\n@projection(nam='p', subscribes='*')\ndef apply(event): pass\n", 2, "unexpected keyword argument 'nam'"),
    ("no subscription", "from lantern import *\n@projection(name='p')\ndef apply(event): pass\n", 2, "subscribes"),
    ("an unknown policy", "from lantern import *\n@projection(name='p', subscribes='*', on_failure='ignore')\ndef apply(event): pass\n", 1, "is not one of park-subject"),
    ("a table with a wrong name", "from lantern import *\nt = Table('My Table')\n", 2, "must be 1 to 63 lower-case letters"),
    ("two tables with one name", "from lantern import *\nt = Table('t')\nu = Table('t')\n", 3, "two tables are named `t`"),
    ("a field that is a type", "from lantern import *\nt = Table('t', n=int)\n", 2, "is not a field"),
    ("an unknown merge", "from lantern import *\nt = Table('t', n=integer('add'))\n", 2, "the merge 'add' is not one of"),
    ("a wrong duration", "from lantern import *\nt = Table('t', retention='a week', n=integer)\n", 2, "is not a duration"),
    ("a wrong zone", "from lantern import *\nz = TimeZone('Europe/Berlinn')\n", 2, "is not a time zone"),
    ("parameters while loading", "from lantern import *\np = Parameters(top=1)\nx = p.top\n", 3, "is not known while the module is loaded"),
    ("a row while loading", "from lantern import *\nt = Table('t', n=integer)\nt.row('k')\n", 3, "only while events are applied"),
    ("a file while loading", "x = open('data.csv')\n", 1, "a projection has no files"),
    ("the clock while loading", "import time\nx = time.time()\n", 2, "a projection has no clock"),
    ("a null byte", "x = 1\0\n", 1, "null bytes"),
    ("a recursion", "def f(): return f()\nf()\n", 1, "RecursionError"),
    ("a coding that is none", "# -*- coding: nothing -*-\nx = (\n", 2, "never closed"),
    ("an invalid match", "match 1:\n    case x: pass\n    case y: pass\n", 2, "makes remaining patterns unreachable"),
    ("a lambda with a statement", "f = lambda: return 1\n", 1, "invalid syntax"),
    ("an except without a try", "except ValueError:\n    pass\n", 1, "invalid syntax"),
    ("a decorator of nothing", "from lantern import *\n@on_timer\n", 2, ""),
    ("a timer without event time", "from lantern import *\n@on_timer\ndef fired(timer): pass\n" + _END.lstrip(), 1, "needs event time"),
]

PARKED = [
    ("a missing member", "    t.row('k')['n'] += event.data['cents']\n", "KeyError: 'cents'"),
    ("text as a number", "    t.row('k')['n'] += event.data['text']\n", "TypeError: unsupported operand"),
    ("an unknown field", "    t.row('k')['m'] += 1\n", "KeyError: 'm'"),
    ("a wrong kind", "    t.row('k')['n'] = 'x'\n", "which is not an integer"),
    ("an unknown variable", "    x = undefined\n", "NameError: name 'undefined' is not defined"),
    ("an exception of its own", "    raise Refused('not today')\n", "not today"),
    ("an assertion", "    assert event.time < 0, 'late'\n", "AssertionError: late"),
    ("a recursion", "    def f(n): return f(n + 1)\n    f(0)\n", "RecursionError"),
    ("a file", "    open('x.txt', 'w')\n", "a projection has no files"),
    ("a file of pathlib", "    import pathlib\n    pathlib.Path('/etc/passwd').read_text()\n", "a projection has no files"),
    ("a folder", "    import os\n    os.listdir('/')\n", "a projection has no files"),
    ("an environment variable", "    import os\n    os.environ['HOME']\n", "KeyError: 'HOME'"),
    ("a socket", "    import socket\n    socket.socket()\n", "a projection has no network"),
    ("a connection", "    import socket\n    socket.create_connection(('example.com', 80))\n", "a projection has no network"),
    ("a process", "    import subprocess\n    subprocess.run(['ls'])\n", "cannot start processes"),
    ("a command", "    import os\n    os.system('ls')\n", ""),
    ("a thread", "    import threading\n    threading.Thread(target=print).start()\n", "no threads"),
    ("the clock", "    import time\n    time.time()\n", "a projection has no clock; use event.time"),
    ("the date", "    import datetime\n    datetime.datetime.now()\n", "a projection has no clock"),
    ("the day", "    from datetime import date\n    date.today()\n", "a projection has no clock"),
    ("a timer of performance", "    import time\n    time.perf_counter()\n", "a projection has no clock"),
    ("a local time", "    import time\n    time.localtime()\n", "a projection has no clock"),
    ("a wait", "    import time\n    time.sleep(1)\n", "a projection cannot wait"),
    ("a random number", "    import random\n    random.random()\n", "a projection has no randomness"),
    ("a random choice", "    from random import choice\n    choice([1, 2])\n", "a projection has no randomness"),
    ("a generator without a seed", "    import random\n    random.Random()\n", "a projection has no randomness"),
    ("a random identifier", "    import uuid\n    uuid.uuid4()\n", "a projection has no randomness"),
    ("a secret", "    import secrets\n    secrets.token_hex()\n", "a projection has no randomness"),
    ("random bytes", "    import os\n    os.urandom(8)\n", "a projection has no randomness"),
    ("a late import", "    import requests\n", "no module named 'requests'"),
    ("an exit", "    exit()\n", ""),
    ("an input", "    input('name?')\n", "no terminal"),
    ("an event loop", "    import asyncio\n    async def f(): pass\n    asyncio.run(f())\n", "no event loop"),
    ("a deep structure", "    x = []\n    for _ in range(100): x = [x]\n    t.row('k')['j'] = x\n", "nested too deep"),
    ("a structure in itself", "    x = []\n    x.append(x)\n    t.row('k')['j'] = x\n", "nested too deep"),
    ("a key that is none", "    t.row(1.5)\n", "is a float"),
    ("a new table", "    Table('u', n=integer)\n", "is declared while events are applied"),
]


def parked_text(body):
    """The script with this body of `apply`."""
    return _HEAD + body
