"""A result carries its provenance; what pages quote of it is named, and never by a date."""

import json
import math

import pytest
import torch

from labkit import environment, machines, modules, results, timed

AMD = {"cpu": "AMD EPYC", "cores": 2, "capability": "AVX2"}
INTEL = {"cpu": "Intel Xeon", "cores": 8}
H200 = {"cpu": "Intel Xeon", "cores": 8, "gpu": "NVIDIA H200"}
MACHINES = {
    "machines": {
        "amd-epyc-2core": {"name": "our EPYC", "device": "cpu", "cores": 2, "capability": "AVX2"},
        "intel-xeon-8core": {"name": "our Xeon", "device": "cpu", "cores": 8},
        "nvidia-h200": {"name": "our H200", "device": "gpu", "cores": 8},
    },
    "quotes": {"02": {"cpu": "amd-epyc-2core", "gpu": "nvidia-h200"}},
    "exceptions": {"ch02/loses": {"gpu": "nvidia-h200"}},
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder of results."""
    monkeypatch.setattr(results, "folder", lambda: tmp_path)
    return tmp_path


@pytest.fixture
def say(folder):
    """Writes machines.json: `say(part={...})` changes a part of it."""

    def write(text=None, **changed):
        (folder / "machines.json").write_text(text or json.dumps(MACHINES | changed))

    write()
    return write


def keep(folder, name, env, rows=({"x": 1},), **more):
    """Store a document as a machine would have."""
    doc = {"schema": 1, "name": name, "env": env, "command": "labkit lab X --store"}
    doc |= {"commit": "abc", "date": "2026-01-01", "rows": list(rows), **more}
    path = folder / f"{name}.{environment.file_name(env)}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(doc))


# -- what is stored --------------------------------------------------------------------------------


def test_a_result_carries_its_provenance(folder):
    rows = [{"variant": "a", "multiple": 2.5, "iqr": 0.1, "n": 5}]
    path = results.save("demo", rows)
    doc = json.loads(path.read_text())
    assert path.name == f"demo.{environment.file_name(doc['env'])}.json"
    assert {"schema", "name", "env", "command", "commit", "date", "rows"} == set(doc)
    assert doc["schema"] == 1
    assert doc["rows"] == rows
    assert doc["env"]["cpu"]
    assert "/" not in doc["command"].split()[0]
    with pytest.raises(ValueError, match="0 rows of 'demo' match"):
        results.row("demo", variant="b")
    with pytest.raises(ValueError, match="no result is stored as 'dmo'; stored are: demo"):
        results.load("dmo")


@pytest.mark.parametrize(
    "name",
    ["ch02/baseline", "CH02-BASELINE", "ch02-baseline", "ch4b-lab-03", "CH4B-LAB-03"],
)
def test_one_result_has_one_name(folder, name):
    results.save(name, [{"x": 1}])
    assert [p.parent.name for p in folder.rglob("baseline.*.json")] == ["ch02"]
    assert results.canonical(name) == "ch02/baseline"
    assert results.load(name)["name"] == "ch02/baseline"


def test_results_of_no_chapter_and_of_a_setting_are_still_read_by_their_old_names():
    assert results.canonical("bench-transformers") == "bench/transformers"
    assert results.canonical("ch14-ladder") == "ch14/ladder"
    assert results.find("ch14-ladder-ends").name == "ends.intel-xeon-2core.json"
    assert results.find("ch14-ladder-ends-busy").name == "ends.intel-xeon-2core-busy.json"


@pytest.mark.parametrize("rows", [[], 3, None, [3], {"a": 1}])
def test_a_result_without_rows_is_refused(folder, rows):
    with pytest.raises(ValueError, match="at least one row"):
        results.save("demo", rows)
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    "value, named",
    [
        (math.nan, "x = nan"),
        (-math.inf, "x = -inf"),
        ([1.0, [math.nan]], r"x\[1\]\[0\] = nan"),
        ({"fast": math.inf}, r"x\['fast'\] = inf"),
    ],
)
def test_what_is_no_number_never_enters_a_result(folder, value, named):
    rows = [{"variant": "a", "x": 1.0}, {"variant": "b", "unit": "s", "x": value}]
    said = rf"row 2 \(variant='b'\) of 'ch02/flash' has {named}: a result holds finite numbers only"
    with pytest.raises(ValueError, match=said):
        results.save("ch02-flash", rows)
    with pytest.raises(ValueError, match=said):
        results.document("ch02-flash", rows)  # printed by --json
    assert not list(folder.iterdir())


def test_no_stored_result_holds_what_is_no_number():
    for path in results._stored():
        json.loads(path.read_text(), parse_constant=pytest.fail)


def test_no_result_keeps_a_path_of_the_machine_that_made_it():
    argv = ["labkit", "lab", "X", "--store"]
    for given in (
        ["/usr/bin/labkit", "lab", "X", "--plot", "/home/me/x.png", "--store"],
        [*argv, "--plot=/home/me/x.png"],
        ["/usr/lib/labkit/cli/__main__.py", *argv[1:]],  # python -m labkit.cli
    ):
        assert results._command(given) == "labkit lab X --store"
    commands = [json.loads(path.read_text())["command"] for path in results._stored()]
    assert commands
    assert not [c for c in commands if "/" in c]


# -- whose numbers are quoted ----------------------------------------------------------------------


def test_what_is_quoted_is_named_and_no_newer_file_changes_it(folder, say):
    keep(folder, "ch02/flash", AMD, [{"x": 1}], date="2026-01-01")
    keep(folder, "ch02/flash", H200, [{"x": 3}], date="2026-01-01")
    read = lambda *machine: results.row("ch02/flash", *machine)["x"]
    assert read() == 1
    keep(folder, "ch02/flash", INTEL, [{"x": 2}], date="2999-01-01")
    keep(folder, "ch02/flash", {"cpu": "A CPU", "cores": 1}, [{"x": 4}], date="2999-01-01")
    assert read() == 1
    say(machines=MACHINES["machines"], quotes={"02": {"cpu": "intel-xeon-8core"}})
    assert read() == 2


def test_a_machine_or_a_device_can_be_named(folder, say):
    for x, env in enumerate((AMD, INTEL, H200)):
        keep(folder, "ch02/flash", env, [{"x": x}])
    read = lambda machine: results.row("ch02/flash", machine)["x"]
    wanted = ("cpu", "gpu", "intel-xeon-8core", "nvidia-*", "amd-*2core")
    assert [read(machine) for machine in wanted] == [0, 2, 1, 2, 0]
    assert results.row("ch02/flash.intel-xeon-8core")["x"] == 1
    with pytest.raises(
        ValueError, match=r"'ch02/flash' has not been stored by 'arm-\*'; it has by"
    ):
        read("arm-*")
    with pytest.raises(ValueError, match="stored by amd-epyc-2core, intel-xeon-8core, nvidia-h200"):
        read("*")


def test_an_exception_speaks_for_its_result_alone(folder, say):
    for env in (AMD, H200):
        keep(folder, "ch02/loses", env)
        keep(folder, "ch02/flash", env)
    assert "gpu" in results.load("ch02/loses")["env"]
    assert "gpu" not in results.load("ch02/flash")["env"]
    with pytest.raises(
        ValueError, match="doesn't say whose numbers of 'ch02/loses' are quoted for"
    ):
        results.load("ch02/loses", "cpu")


def test_what_nobody_names_is_not_quoted(folder, say):
    keep(folder, "ch03/pool", AMD)
    with pytest.raises(
        ValueError, match="doesn't say whose numbers of 'ch03/pool' are quoted: name"
    ):
        results.load("ch03/pool")
    keep(folder, "ch02/flash", INTEL)
    with pytest.raises(
        ValueError, match="'ch02/flash' has not been stored by 'amd-epyc-2core'; it"
    ):
        results.load("ch02/flash")


def test_a_folder_of_ones_own_needs_no_machines(folder):
    """What a reader stores elsewhere is read as long as it is clear which is meant."""
    keep(folder, "demo", AMD)
    (folder / "demo.trace.json").write_text("{}")
    assert results.row("demo")["x"] == 1
    assert results.where(results.load("demo")) == "AMD EPYC, 2 cores, AVX2"
    keep(folder, "demo", INTEL)
    with pytest.raises(
        ValueError, match="stored by amd-epyc-2core, intel-xeon-8core: name the one"
    ):
        results.row("demo")


@pytest.mark.parametrize(
    "text, said",
    [
        ("{", r"machines\.json is no JSON"),
        ("[]", r"machines\.json must hold machines, quotes, exceptions and nothing else"),
        ('{"machines": {}}', "must hold machines, quotes, exceptions"),
        (
            '{"machines": {}, "quotes": [], "exceptions": {}}',
            "an object for each name under quotes",
        ),
        ('{"machines": {"a": 1}, "quotes": {}, "exceptions": {}}', "each name under machines"),
    ],
)
def test_a_malformed_machines_file_is_one_sentence(folder, say, text, said):
    keep(folder, "ch02/flash", AMD)
    say(text)
    with pytest.raises(ValueError, match=said) as refused:
        results.load("ch02/flash")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "machine",
    [
        {},
        {"name": "A", "device": "cpu"},
        {"name": "A", "device": "tpu", "cores": 2},
        {"name": "A", "device": "cpu", "cores": "2"},
        {"name": "A", "device": "cpu", "cores": 2, "colour": "red"},
    ],
)
def test_a_malformed_machine_is_one_sentence(folder, say, machine):
    say(machines={"amd-epyc-2core": machine})
    with pytest.raises(ValueError, match="must give 'amd-epyc-2core' a name, a device"):
        machines.read(folder)


@pytest.mark.parametrize(
    "quoted, said",
    [
        ({"cpu": "arm-2core"}, "quotes 'arm-2core' for '02' and doesn't list it under machines"),
        ({"tpu": "amd-epyc-2core"}, "quotes a 'tpu' for '02' under quotes: use cpu or gpu"),
        ({"cpu": "nvidia-h200"}, "quotes 'nvidia-h200' as the cpu of '02', and lists it as a gpu"),
    ],
)
def test_a_quote_of_no_such_machine_is_one_sentence(folder, say, quoted, said):
    say(quotes={"02": quoted})
    with pytest.raises(ValueError, match=said):
        machines.read(folder)


def test_stored_results_fit_labs_and_machines(folder, say):
    keep(folder, "ch02/flash", AMD)
    keep(folder, "ch02/loses", H200)
    results.check()
    (folder / "ch02/decode.trace.json").write_text("{}")  # a recording is none
    results.check()

    keep(folder, "ch02/flsh", AMD)
    with pytest.raises(ValueError, match="no lab measures 'ch02/flsh'"):
        results.check()
    (folder / "ch02/flsh.amd-epyc-2core.json").unlink()

    keep(folder, "ch02/flash", {"cpu": "ARM", "cores": 2})
    with pytest.raises(
        ValueError, match="doesn't say how the machine 'arm-2core' is called: add it"
    ):
        results.check()
    (folder / "ch02/flash.arm-2core.json").unlink()

    say(quotes={"32": {"cpu": "amd-epyc-2core"}})
    with pytest.raises(ValueError, match=r"quotes for '32', which is no chapter"):
        results.check()
    say(exceptions={"ch02/flush": {"cpu": "amd-epyc-2core"}})
    with pytest.raises(ValueError, match="no lab measures 'ch02/flush'"):
        results.check()
    (folder / "machines.json").unlink()
    with pytest.raises(ValueError, match=r"no machines\.json"):
        results.check()


def test_a_helper_measures_nothing():
    assert timed.source_of("ch02/baseline").name == "baseline.py"
    assert timed.source_of("ch02/checks") is None
    assert timed.source_of("ch02/") is None
    assert timed.source_of("demo") is None


def test_the_courses_own_results_fit():
    results.check()


# -- receipts --------------------------------------------------------------------------------------


def test_a_receipt_lists_every_document_that_its_number_came_from(folder, say):
    keep(folder, "ch02/flash", AMD | {"kernels": "compiled", "torch": "2.9"}, note="busy")
    keep(folder, "ch02/flash", H200, [{"x": 4, "iqr": 0.5, "unit": "s", "n": 3}], date="2026-02-02")
    made = results.receipt('row("ch02/flash", "gpu")["x"] / row("ch02/flash")["x"] | .1f')
    assert made.text == "4.0"
    assert made.sources == [
        {
            "result": "ch02/flash",
            "machine": "our H200",
            "date": "2026-02-02",
            "commit": "abc",
            "command": "labkit lab X --store",
            "spread": "quartiles 0.5 s apart, 3 runs",
            "code": results.UNMARKED,
        },
        {
            "result": "ch02/flash",
            "machine": "our EPYC",
            "date": "2026-01-01",
            "commit": "abc",
            "command": "labkit lab X --store",
            "versions": "torch 2.9",
            "kernels": "compiled",
            "note": "busy",
            "code": results.UNMARKED,
        },
    ]
    assert made.measured == [
        "Measured on our H200, 2026-02-02, commit abc: labkit lab X --store.",
        "Measured on our EPYC, 2026-01-01, commit abc: labkit lab X --store.",
    ]


def test_rows_of_one_document_are_one_source_with_the_spread_of_each(folder, say):
    rows = [{"v": "a", "x": 2, "iqr": 0.5, "n": 3}, {"v": "b", "x": 1, "iqr": 0.25, "n": 7}]
    keep(folder, "ch02/flash", AMD, rows)
    made = results.receipt('row("ch02/flash", v="a")["x"] / row("ch02/flash", v="b")["x"]')
    (source,) = made.sources
    assert source["spread"] == "quartiles 0.5 apart, 3 runs; quartiles 0.25 apart, 7 runs"


def test_a_receipt_of_a_machine_that_is_not_listed_is_refused(folder, say):
    keep(folder, "ch02/flash", {"cpu": "ARM", "cores": 2})
    with pytest.raises(ValueError, match="doesn't say how the machine 'arm-2core' is called"):
        results.receipt('row("ch02/flash", "arm-2core")["x"]')


def test_a_receipt_evaluates_formulas_and_nothing_else():
    made = results.receipt('kv_cache_bytes(presets["llama3-70b"], 1)')
    assert (made.text, made.sources, made.measured) == ("327,680", [], [])
    assert results.receipt("sum(t for t in range(1, 4)) | 04d").text == "0006"
    for evil in (
        '__import__("os").getcwd()',
        'open("x")',
        'kv_cache_bytes(presets["lama3-70b"], 1)',
    ):
        with pytest.raises(ValueError, match="cannot be made"):
            results.receipt(evil)


# -- the code that was timed -----------------------------------------------------------------------

LAB = '''"""What it is."""
from labkit.lab import Lab
from labkit_labs.ch02_kv_cache import helper

def run(device, n):
    return [{"x": helper.f(n)}]

def draw(rows):
    from labkit import plotting

LAB = Lab(title="A lab", notice="See.", run=run, plot=draw, sizes={"full": {"n": 9}})
'''
HELPER = "def f(n):\n    return n\n"


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A lab in a tree of its own: `lab(name, old, new)` edits a file of it."""
    files = {
        "ch02_kv_cache/timed.py": LAB,
        "ch02_kv_cache/helper.py": HELPER,
        "ch02_kv_cache/__init__.py": 'LABS = ("timed",)\nONE = 1\n',
        "labkit/lab.py": "Lab = dict\n",
        "labkit/plotting.py": "",
        "labkit/cli.py": "",
    }
    for name in (*files, *(f"{m.replace('.', '/')}.py" for m in timed.FRAME)):
        path = tmp_path / "labs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files.get(name, ""))
    labs = tmp_path / "labs"
    roots = {"labkit": labs / "labkit", "labkit_labs": labs}
    monkeypatch.setattr(modules, "packages", lambda: roots)
    (tmp_path / "results").mkdir()
    monkeypatch.setattr(results, "folder", lambda: tmp_path / "results")

    def edit(name, old, new):
        text = (labs / name).read_text()
        assert old in text or not old
        (labs / name).write_text(text.replace(old, new) if old else text + new)

    return edit


@pytest.mark.parametrize(
    "name, old, new, same",
    [
        ("ch02_kv_cache/helper.py", "return n", "return n + 1", False),
        ("ch02_kv_cache/helper.py", "return n", "return n  # as it is", True),
        ("ch02_kv_cache/timed.py", "helper.f(n)", "helper.f(n + 1)", False),
        ("ch02_kv_cache/timed.py", '{"n": 9}', '{"n": 10}', False),
        ("ch02_kv_cache/timed.py", '"""What it is."""', '"""It."""', True),
        ("ch02_kv_cache/timed.py", "A lab", "The lab", True),  # says, doesn't measure
        ("ch02_kv_cache/timed.py", "See.", "Look.", True),
        ("ch02_kv_cache/timed.py", "    from labkit import plotting", "    pass", True),
        ("ch02_kv_cache/__init__.py", '"timed",', '"timed", "other"', True),
        ("ch02_kv_cache/__init__.py", "ONE = 1", "ONE = 2", False),
        ("labkit/plotting.py", "", "x = 1", True),
        ("labkit/lab.py", "dict", "list", True),
    ],
)
def test_a_result_carries_a_hash_of_what_it_timed(lab, name, old, new, same):
    before = json.loads(results.save("ch02/timed", [{"x": 1}]).read_text())
    assert len(before["code"]) == 16
    assert not results.stale(before)
    assert results.code_state(before) == results.SAME
    lab(name, old, new)
    assert results.stale(before) is not same
    assert (results.document("ch02/timed", [{"x": 1}])["code"] == before["code"]) is same


def test_a_processors_row_whose_code_changed_names_its_command(lab):
    results.save("ch02/timed", [{"x": 1}])
    assert results.to_measure_again() == []
    lab("ch02_kv_cache/helper.py", "return n", "return n + 1")
    assert results.to_measure_again() == [
        "ch02/timed was measured before the code changed; measure it again:"
        " labkit lab CH02-TIMED --store"
    ]
    assert results.receipt('row("ch02/timed")["x"]').sources[0]["code"] == results.CHANGED


def test_a_gpus_row_whose_code_changed_says_so_in_its_receipt_only(lab):
    path = results.save("ch02/timed", [{"x": 1}])
    doc = json.loads(path.read_text())
    path.write_text(json.dumps(doc | {"env": H200}))
    lab("ch02_kv_cache/helper.py", "return n", "return n + 1")
    assert results.to_measure_again() == []
    assert results.receipt('row("ch02/timed")["x"]').sources[0]["code"] == results.CHANGED


def test_rows_older_than_the_rule_are_marked_and_no_hash_is_invented(lab):
    path = results.save("ch02/timed", [{"x": 1}])
    doc = json.loads(path.read_text())
    del doc["code"]
    path.write_text(json.dumps(doc))
    assert results.code_state(doc) == results.UNMARKED
    assert not results.stale(doc)
    assert results.to_measure_again() == []


def test_every_stored_result_has_code_that_measures_it():
    for name in results._names():
        assert timed.code_of(name), name
    reached = {p.name for p in modules.closure(timed.source_of("ch02/baseline"))}
    assert {"baseline.py", "decode.py", "model.py", "linear.c"} <= reached


# -- the machine -----------------------------------------------------------------------------------


def test_cores_are_those_that_the_process_may_use(tmp_path, monkeypatch):
    monkeypatch.setattr(environment.os, "sched_getaffinity", lambda pid: {3, 5}, raising=False)
    assert environment.cores(tmp_path) == 2


GROUPS = {
    "none": ({}, None, 4),
    "version 2, at the top, as a container sees it": (
        {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "100000 100000\n"},
        1.0,
        1,
    ),
    "version 2 without a limit": (
        {"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": "max 100000\n"},
        None,
        4,
    ),
    "version 2: the tightest of its own and those above": (
        {
            "proc/self/cgroup": "0::/a/b\n",
            "sys/fs/cgroup/a/cpu.max": "125000 100000\n",
            "sys/fs/cgroup/a/b/cpu.max": "300000 100000\n",
        },
        1.25,
        2,
    ),
    "version 1 in a container: its path isn't there, its group stands at the top": (
        {
            "proc/self/cgroup": "3:memory:/x\n2:cpu,cpuacct:/docker/abc\n1:cpuset:/\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "50000\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        },
        0.5,
        1,
    ),
    "version 1, the two controllers under the name of one": (
        {
            "proc/self/cgroup": "2:cpuacct,cpu:/a\n",
            "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "300000\n",
            "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000\n",
        },
        3.0,
        3,
    ),
    "version 1 without a limit": (
        {
            "proc/self/cgroup": "2:cpu:/\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
        None,
        4,
    ),
    "a limit above what there is": (
        {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "6400000 100000\n"},
        64.0,
        4,
    ),
}


@pytest.mark.parametrize("name", GROUPS)
def test_a_groups_quota_is_what_there_is_of_cores(tmp_path, monkeypatch, name):
    files, quota, cores = GROUPS[name]
    monkeypatch.setattr(
        environment.os, "sched_getaffinity", lambda pid: set(range(4)), raising=False
    )
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert environment.cpu_quota(tmp_path) == quota
    assert environment.cores(tmp_path) == cores


def test_a_container_of_one_processor_is_called_a_machine_of_one_core(monkeypatch):
    monkeypatch.setattr(environment.os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    monkeypatch.setattr(environment, "cpu_quota", lambda root=None: 1.0)
    env = environment.environment()
    assert (env["cores"], env["cpu_quota"]) == (1, 1.0)
    assert environment.file_name(env).endswith("-1core")


def test_an_environment_says_load_threads_and_kernels(monkeypatch):
    from labkit import kernels

    env = environment.environment(load=0.25, threads=7)
    assert (env["load"], env["threads"]) == (0.25, 7)
    assert env["capability"] == torch.backends.cpu.get_cpu_capability()
    assert environment.environment()["threads"] == torch.get_num_threads()
    assert "load" not in environment.environment()

    monkeypatch.setattr(kernels, "missing", lambda name: "")
    assert environment.environment()["kernels"] == "compiled"
    monkeypatch.setattr(kernels, "missing", lambda name: "no compiler" * (name == "attention"))
    assert environment.environment()["kernels"] == "absent: no compiler"
    monkeypatch.setenv("LABKIT_KERNELS", "off")
    assert environment.environment()["kernels"] == "off"


def test_what_ran_without_our_kernels_does_not_speak_of_them(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    env = environment.environment("cuda")
    assert env["gpu"] == "NVIDIA H200"
    assert "kernels" not in env
    monkeypatch.delitem(environment.sys.modules, "labkit.kernels", raising=False)
    assert "kernels" not in environment.environment()


def test_a_document_keeps_what_the_caller_knows_of_its_run():
    doc = results.document("demo", [{"x": 1}], load=1.5, threads=3)
    assert (doc["env"]["load"], doc["env"]["threads"]) == (1.5, 3)
