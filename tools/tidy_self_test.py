"""tools/tidy --self-test: a small tidy tree, and one change per case that breaks one rule."""
import shutil
import tempfile
from pathlib import Path

LONG_BODY = "    a++;\n" * 69


def header(path, body=""):
    guard = "WEIR_" + path.replace("/", "_").replace(".", "_").upper()
    return f"#ifndef {guard}\n#define {guard}\n{body and chr(10) + body}\n#endif\n"


def function(name, body="", comment=""):
    return f"{comment}void {name}(int a);\nvoid {name}(int a) {{\n{body}    (void)a;\n}}\n"


STAT_DEF = """#ifndef STAT
#define STAT(name, kind, metric, labels, help)
#endif
STAT(ENTER, COUNTER, "enter_total", "", "turns (all), of the ring")
STAT_HISTOGRAM(WAIT, SECONDS, "wait_seconds", "waiting")
STAT_BY_REASON(retries, "retries_total", "sent again")
"""

TIDY = {
    "Makefile": "bench:\n\tperf/bench\n",
    "perf/bench": "#!/bin/sh\n",
    "src/base/README.md": "base\n",
    "src/ring/README.md": "ring\n",
    "src/proxy/README.md": "proxy\n",
    "src/service/README.md": "service\n",
    "src/base/bytes.h": header("base/bytes.h", "int bytes_count(void);\n"),
    "src/base/bytes.c": '#include "base/bytes.h"\n\nint bytes_count(void) { return 1; }\n',
    "src/base/reason.def": 'REASON(NONE, 0, "ok", "", "it ended well (always)", "test_ends")\n'
                           'REASON(LATE, 504, "slow", "", "it was late", "late_is_504")\n',
    "src/base/stat.def": STAT_DEF,
    "src/base/stat.h": header("base/stat.h",
                              'enum stat_id {\n#include "base/stat.def"\n    STAT_COUNT\n};\n'
                              '#include "base/reason.def"\n'),
    "src/ring/ring.h": header("ring/ring.h", "#include <liburing.h>\n"),
    "src/ring/ring.c": '#include "ring/ring.h"\n\n#include "base/bytes.h"\n',
    "src/service/service.h": header("service/service.h"),
    "src/proxy/route.h": header("proxy/route.h"),
    "src/proxy/route.c": '#include "proxy/route.h"\n\n#include "service/service.h"\n',
    "src/main.c": '#include "base/bytes.h"\n#include "base/stat.h"\n#include "proxy/route.h"\n'
                  '#include "ring/ring.h"\n\n'
                  "int main(void) {\n"
                  "    stat_add(block, STAT_ENTER, 1);\n"
                  "    stat_observe(block, STAT_HIST_WAIT, 1);\n"
                  "    stat_bump(&block->retries[REASON_LATE], 1);\n"
                  "    return REASON_NONE;\n}\n",
    "tests/behaviour/http/test_ends.py": "def test_ends():\n    pass\n",
    "tests/unit/base/bytes_test.c": '#include "base/bytes.h"\n\n'
                                    "int main(void) { return cmocka_unit_test(late_is_504); }\n",
}


def changed(path, old, new):
    assert old in TIDY[path], (path, old)
    return {path: TIDY[path].replace(old, new)}


def appended(path, text):
    return {path: TIDY[path] + text}


MAIN_LINES = TIDY["src/main.c"].count("\n")
BYTES_C = "src/base/bytes.c"

# (what is wrong, change, rule, file, line)
CASES = [
    ("a room includes one above it", appended(BYTES_C, '#include "ring/ring.h"\n'),
     "include_arrows", BYTES_C, 4),
    ("a room includes one beside it",
     changed("src/ring/ring.c", "base/bytes.h", "proto/http.h")
     | {"src/proto/README.md": "proto\n", "src/proto/http.h": header("proto/http.h")},
     "include_arrows", "src/ring/ring.c", 3),
    ("liburing outside ring", changed("src/main.c", '#include "base/bytes.h"',
                                      "#include <liburing.h>\n#include \"base/bytes.h\""),
     "include_arrows", "src/main.c", 1),
    ("proxy knows a service",
     changed("src/proxy/route.c", "service/service.h", "service/echo.h")
     | appended("src/main.c", '#include "service/service.h"\n')
     | {"src/service/echo.h": header("service/echo.h")},
     "include_arrows", "src/proxy/route.c", 3),
    ("an internal header of another room",
     {"src/base/bytes_internal.h": header("base/bytes_internal.h")}
     | appended("src/main.c", '#include "base/bytes_internal.h"\n'),
     "include_arrows", "src/main.c", MAIN_LINES + 1),
    ("an include without its room", appended(BYTES_C, '#include "stat.h"\n'),
     "include_form", BYTES_C, 4),
    ("a project include in angle brackets", appended(BYTES_C, "#include <base/stat.h>\n"),
     "include_form", BYTES_C, 4),
    ("an include of nothing", appended(BYTES_C, '#include "base/gone.h"\n'),
     "include_form", BYTES_C, 4),
    ("a .c without a header", {"src/base/hash.c": "int hash;\n"},
     "header_pairs", "src/base/hash.c", 1),
    ("another header first", changed(BYTES_C, '#include', '#include "base/stat.h"\n#include'),
     "header_pairs", BYTES_C, 1),
    ("a wrong guard", changed("src/base/bytes.h", "WEIR_BASE_BYTES_H", "BYTES_H"),
     "header_guards", "src/base/bytes.h", 1),
    ("a header of 201 lines", {"src/base/bytes.h": header("base/bytes.h", "\n" * 196)},
     "file_lengths", "src/base/bytes.h", 201),
    ("a .c of 601 lines", appended(BYTES_C, "\n" * 598), "file_lengths", BYTES_C, 601),
    ("a .c of 601 lines that says why",
     {BYTES_C: '#include "base/bytes.h"\n/* Longer than 600 lines because of\n * us. */\n'
               + "\n" * 598}, None, None, None),
    ("a function of 71 lines", appended(BYTES_C, function("f", LONG_BODY[9:])),
     "function_lengths", BYTES_C, 5),
    ("a function of 70 lines", appended(BYTES_C, function("f", LONG_BODY[18:])), None, None, None),
    ("a function of 71 lines that says why",
     appended(BYTES_C, "\nvoid f(int a);\n/* Longer than 70 lines\n * because of us. */\n"
              "static void f(int a, int b,\n              int c) {\n" + LONG_BODY + "}\n"),
     None, None, None),
    ("a line of 101 columns", appended(BYTES_C, "/* " + "x" * 95 + " */\n"),
     "line_lengths", BYTES_C, 4),
    ("a long line of a table", changed("src/base/reason.def", "it was late", "late " * 30),
     None, None, None),
    ("a room without a README", {"src/base/README.md": None},
     "room_readmes", "src/base/README.md", 0),
    ("a README of 61 lines", {"src/base/README.md": "base\n" * 61},
     "room_readmes", "src/base/README.md", 61),
    ("an unsafe call", appended(BYTES_C, function("f", "    strcpy(to, from);\n")),
     "banned_calls", BYTES_C, 6),
    ("a call that only looks like one",
     appended(BYTES_C, function("f", '    ops->select(1); my_gets(1); say("sleep(1)");'
                                     " /* free(it) */\n")), None, None, None),
    ("the heap in routine work", appended(BYTES_C, function("bytes_grow", "    a = malloc(1);\n")),
     "banned_calls", BYTES_C, 6),
    ("the heap at start", appended(BYTES_C, function("bytes_new", "    a = malloc(1);\n")),
     None, None, None),
    ("the environment in a low room", appended(BYTES_C, function("f", '    getenv("A");\n')),
     "banned_calls", BYTES_C, 6),
    ("a header nobody includes", {"src/base/hash.h": header("base/hash.h")},
     "dead_files", "src/base/hash.h", 1),
    ("a .c only a test needs",
     {"src/base/hash.h": header("base/hash.h"), "src/base/hash.c": '#include "base/hash.h"\n',
      "tests/unit/base/hash_test.c": '#include "base/hash.h"\n'},
     "dead_files", "src/base/hash.c", 1),
    ("a test of nothing", {"tests/unit/base/gone_test.c": "int main(void);\n"},
     "dead_files", "tests/unit/base/gone_test.c", 1),
    ("a unit test with a wrong name", {"tests/unit/base/hashes.c": "int main(void);\n"},
     "dead_files", "tests/unit/base/hashes.c", 1),
    ("a behaviour test with a wrong name", {"tests/behaviour/http/begins.py": "pass\n"},
     "dead_files", "tests/behaviour/http/begins.py", 1),
    ("a test that hides another",
     appended("tests/behaviour/http/test_ends.py", "def test_ends():\n    pass\n"),
     "dead_files", "tests/behaviour/http/test_ends.py", 3),
    ("a fuzz driver with a wrong name", {"tests/fuzz/parse.c": "int a;\n"},
     "dead_files", "tests/fuzz/parse.c", 1),
    ("a tool nobody mentions", {"tools/forgotten": "#!/bin/sh\n"},
     "dead_files", "tools/forgotten", 1),
    ("a reason without its test", changed("src/base/reason.def", "late_is_504", "test_late"),
     "reasons_tested", "src/base/reason.def", 2),
    ("a reason nothing has", changed("src/main.c", "return REASON_NONE", "return 0"),
     "reasons_used", "src/base/reason.def", 1),
    ("a counter nobody counts", changed("src/main.c", "STAT_ENTER", "0"),
     "stats_used", "src/base/stat.def", 4),
    ("a histogram nobody observes", changed("src/main.c", "STAT_HIST_WAIT", "0"),
     "stats_used", "src/base/stat.def", 5),
    ("a counter by reason nobody counts", changed("src/main.c", "retries", "others"),
     "stats_used", "src/base/stat.def", 6),
    ("a metric in capitals", changed("src/base/stat.def", "wait_seconds", "waitSeconds"),
     "metric_names", "src/base/stat.def", 5),
    ("a counter without _total", changed("src/base/stat.def", "enter_total", "enters"),
     "metric_names", "src/base/stat.def", 4),
    ("a metric in capitals in the code",
     appended(BYTES_C, function("f", '    print("weir_Up 1");\n')), "metric_names", BYTES_C, 6),
    ("work left open", {"README.md": "weir\nTO" "DO: say more\n"}, "open_ends", "README.md", 2),
    ("a path of one machine", {"README.md": "see /wo" "rk/main\n"}, "open_ends", "README.md", 1),
    ("a path that only looks like one", {"README.md": "see /network/main\n"}, None, None, None),
    ("C that is not formatted", appended(BYTES_C, "int  a;\n"), "formatted", BYTES_C, 4),
]


def finds_of(check, change, rule):
    with tempfile.TemporaryDirectory() as root:
        for path, text in (TIDY | change).items():
            if text is not None:
                file = Path(root) / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)
        shutil.copy(Path(__file__).resolve().parent.parent / ".clang-format", root)
        # The broken files need not be formatted, and clang-format would take most of the time.
        skip = () if rule == "formatted" else ("formatted",)
        return {(of, path, line) for of, finds in check(root, skip).items()
                for path, line, _ in finds}


def self_test(check, rules):
    failed = 0
    for what, change, rule, path, line in [("nothing", {}, None, None, None), *CASES]:
        finds = finds_of(check, change, rule)
        expected = {(rule, path, line)} if rule else set()
        failed += finds != expected
        print(f"{'ok' if finds == expected else 'failed':6} {what}: {rule or 'no rule'}")
        if finds != expected:
            print(f"       expected {sorted(expected)}\n       found    {sorted(finds)}")
    untested = {rule.__name__ for rule in rules} - {case[2] for case in CASES}
    print(f"{'failed' if untested else 'ok':6} every rule has a case {' '.join(sorted(untested))}")
    return 1 if failed or untested else 0
