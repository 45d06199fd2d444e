"""Fixtures of the behaviour tests. tests/README.md shows how to write one."""

import os
import resource
import signal
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from harness.stage import WEB, Stage  # noqa: E402

# No test may hang the run, whatever weir does. Waits inside tests end much earlier.
TEST_S = int(os.environ.get("WEIR_TEST_SECONDS", "90"))

# Every client and every origin connection is a descriptor of this process.
_, _fds = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(_fds, 65536), _fds))

os.environ.setdefault("UBSAN_OPTIONS", "halt_on_error=1:print_stacktrace=1")
os.environ.setdefault("ASAN_OPTIONS", "detect_leaks=1:detect_stack_use_after_return=0")


class _Keeper:
    """Keeps a module's stage, and puts a new one in its place after a failure."""

    def __init__(self, make):
        self.make = make
        self.stage = None

    def get(self):
        if self.stage is None:
            self.stage = self.make()
        return self.stage

    def drop(self):
        if self.stage is not None:
            self.stage.abandon()
            self.stage = None

    def stop(self):
        if self.stage is not None:
            self.stage.stop()


@pytest.fixture(scope="module")
def _keeper(request, tmp_path_factory):
    def make():
        ini = getattr(request.module, "INI", WEB)
        keys = getattr(request.module, "GLOBAL", {})
        return Stage(tmp_path_factory.mktemp("weir"), ini, **keys)

    keeper = _Keeper(make)
    yield keeper
    keeper.stop()


@pytest.fixture
def stage(request, _keeper):
    """The module's stage (its INI, its GLOBAL), with the leak check after the test."""
    stage = _keeper.get()
    request.node.stages = getattr(request.node, "stages", []) + [stage]
    yield stage
    try:
        stage.check()
    except BaseException:
        _keeper.drop()
        raise
    if request.node.failed:
        _keeper.drop()


@pytest.fixture
def new_stage(request, tmp_path_factory):
    """new_stage(INI, **global_keys): a stage for this test alone, checked and stopped after it."""
    stages = request.node.stages = getattr(request.node, "stages", [])
    mine = []

    def make(ini=WEB, **keys):
        stage = Stage(tmp_path_factory.mktemp("weir"), ini, **keys)
        stages.append(stage)
        mine.append(stage)
        return stage

    yield make
    errors = []
    for stage in mine:
        try:
            if stage.weir.running() and not request.node.failed:
                stage.check()
            stage.stop()
        except BaseException as error:
            stage.abandon()
            errors.append(error)
    if errors:
        raise errors[0]


@pytest.fixture
def weir(stage):
    return stage.weir


@pytest.fixture
def origin(stage):
    return stage.origin


@pytest.fixture
def client(stage):
    return stage.connect()


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session):
    """pytest's own loop, but with WEIR_TEST_CLAIMS=DIRECTORY only through those modules that this
    process is the first to claim there: so several share the work, in the order of the modules."""
    claims = os.environ.get("WEIR_TEST_CLAIMS")
    if not claims or session.testsfailed or session.config.option.collectonly:
        return None
    modules = {}
    for item in session.items:
        modules.setdefault(item.path, []).append(item)
    for path, items in modules.items():
        try:
            open(os.path.join(claims, f"{path.parent.name}.{path.name}"), "x").close()
        except FileExistsError:
            continue
        for item, following in zip(items, [*items[1:], None]):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if session.shouldfail:
                raise session.Failed(session.shouldfail)
            if session.shouldstop:
                raise session.Interrupted(session.shouldstop)
    return True


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item):
    times = next((marker.args[0] for marker in item.iter_markers("long")), 1)

    def too_long(_signal, _frame):
        raise TimeoutError(f"the test took more than {TEST_S * times} s")

    item.failed = False
    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(TEST_S * times)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        item.failed = True
        for stage in getattr(item, "stages", []):
            report.sections.append((f"weir {stage.weir.pid}", stage.weir.log[-8000:]))
