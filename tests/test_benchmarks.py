"""The benchmarks: turns, medians, ratios, agreement, JSON and tables, with a fake worker."""

import argparse
import json
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
FAKE = """
    import sys, threading, time
    sys.path.insert(0, {folder!r})
    import numpy as np, serve
    serve.QUIET_SECONDS = 0.1

    class Job(serve.Plain):
        def __init__(self, case):
            self.case = case
            if case.get("spin"):
                threading.Thread(target=self.spin, daemon=True).start()
        def spin(self):
            while True:
                pass
        def run(self):
            if "fail" in self.case:
                raise ValueError(self.case["fail"])
            print("what a library prints")
            time.sleep(self.case["sleep"])
        def output(self):
            return {{"logits": np.array(self.case["logits"])}}
        def facts(self):
            return {{"known": self.case["sleep"]}}

    serve.serve({{"fake": "1"}}, {{"nap": Job}})
"""


@pytest.fixture(autouse=True)
def _path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Makes workers with a case started."""
    import harness

    script = tmp_path / "fake.py"
    script.write_text(textwrap.dedent(FAKE).format(folder=str(BENCHMARKS)))
    workers = []

    def make(name: str, **case: object) -> harness.Worker:
        workers.append(harness.Worker(name, sys.executable, str(script), threads=1))
        workers[-1].start({"job": "nap", "sleep": 0.0, "logits": [1.0, -4.0], **case})
        return workers[-1]

    yield make
    for worker in workers:
        worker.close()


class Clock:
    """A contender whose turns take the given seconds, in order of the calls."""

    def __init__(self, name: str, seconds: list[float], calls: list[str]) -> None:
        self.name, self.seconds, self.calls = name, iter(seconds), calls

    def run(self, times: int) -> dict[str, float]:
        self.calls.append(f"{self.name}{times}")
        return {"seconds": next(self.seconds), "cpu": 0.25}


def test_turns_medians_and_ratios_of_a_round() -> None:
    import harness

    calls: list[str] = []
    ours = Clock("mixer-mlx", [9.0, 9.0, 1.0, 1.0, 2.0, 4.0, 8.0], calls)
    other = Clock("x", [9.0, 9.0, 0.5, 3.0, 2.0, 6.0, 8.0], calls)
    results = harness.compare([ours, other], rounds=4, seconds=1.5)
    warm = ["mixer-mlx1"] * 3 + ["x1"] * 3
    turn = ["mixer-mlx2", "x3"]  # at least 1.5 seconds a turn
    assert calls == warm + turn + turn[::-1] + turn + turn[::-1]
    assert results["mixer-mlx"]["seconds"] == {"low": 1.75, "median": 3.0, "high": 5.0}
    assert results["mixer-mlx"]["turns"] == [1.0, 2.0, 4.0, 8.0]
    assert results["x"]["cpu_seconds"] == 0.25
    # 3 / 1, 2 / 2, 6 / 4, 8 / 8: not the ratio of the medians, 4.5 / 3.
    assert harness.ratios(results) == {"x": {"low": 1.0, "median": 1.25, "high": 1.875}}
    assert harness.ratios({"x": results["x"]}) == {}


def test_a_worker_runs_rests_and_reports(fake: Callable[..., Any]) -> None:
    slow = fake("slow", sleep=0.05)
    answer = slow.run(2)
    assert answer["seconds"] >= 0.05
    assert answer["cpu"] < 0.05
    assert slow.ask(do="facts") == {"facts": {"known": 0.05}}
    assert slow.versions == {"fake": "1"}
    assert 10e6 < slow.ask(do="memory")["memory"] < 10e9
    assert slow.idle_fraction < 0.2


def test_a_worker_that_burns_while_it_waits_is_reported(
    fake: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import harness

    worker = fake("restless", spin=True)
    while worker.burned < 0.05:  # on a busy machine that takes a while
        time.sleep(0.1)
        worker.run(1)
    monkeypatch.setattr(harness, "MAX_IDLE", worker.idle_fraction / 2)
    assert harness.check_idle([worker])["restless"] == worker.idle_fraction
    assert "WARNING: restless took" in capsys.readouterr().err


def test_failures_quote_the_worker(fake: Callable[..., Any]) -> None:
    import harness

    with pytest.raises(harness.BenchmarkError, match="ValueError: out of luck"):
        fake("unlucky", fail="out of luck").run(1)
    with pytest.raises(harness.BenchmarkError, match="ended with code 3"):
        harness.Command("gone", [sys.executable, "-c", "raise SystemExit(3)"], 1).run(1)


def test_what_is_not_installed_is_said(tmp_path: Path) -> None:
    import harness

    script = tmp_path / "absent.py"
    lines = [f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r}); import serve", "try:"]
    lines += [
        "    import no_such_thing",
        "except ImportError as error:",
        "    serve.missing(error)",
    ]
    script.write_text("\n".join(lines))
    with pytest.raises(harness.NotInstalledError, match="no_such_thing"):
        harness.Worker("absent", sys.executable, str(script), threads=1)


def test_outputs_must_agree(fake: Callable[..., Any], tmp_path: Path) -> None:
    import agreement
    import harness

    workers = [fake("a"), fake("b", logits=[1.0, -4.1])]
    found = agreement.check(workers, tmp_path, "logits", 0.03)
    assert found == {"b": pytest.approx(0.025)}
    assert agreement.check(workers, tmp_path, "logits", 1e-9, first=1) == {"b": 0.0}
    with pytest.raises(harness.BenchmarkError, match=r"b differs from a by 0\.025"):
        agreement.check(workers, tmp_path, "logits", 0.02)
    broken = [fake("a"), fake("nan", logits=[1.0, float("nan")])]
    with pytest.raises(harness.BenchmarkError, match="nan computed"):
        agreement.check(broken, tmp_path, "logits", 0.02)


def session_options(tmp_path: Path) -> argparse.Namespace:
    return argparse.Namespace(
        quick=False,
        rounds=2,
        threads=1,
        contenders=None,
        out=tmp_path / "inference.json",
        add=False,
    )


def test_json_becomes_tables(tmp_path: Path) -> None:
    import harness
    import tables
    from session import Session

    results = {
        name: harness.summary([{"seconds": s, "cpu": 1.5, "memory": 2**21} for s in turns], 1)
        for name, turns in {"timm": [0.3, 0.9], "mixer-mlx": [0.1, 0.3]}.items()
    }
    with Session("inference", session_options(tmp_path)) as run:
        run.add({"name": "B/16 batch 8"}, results, differences={"timm": 2e-6})
        run.skip("flax", "No module named 'jax'; see --jax-python")
    page = "\n".join(tables.page(tmp_path, {}))
    assert "### Forward passes" in page
    assert "| B/16 batch 8 | 200 ms [0.75, 1.25] | 3.00x [3.00, 3.00] (600 ms) |" in page
    assert "| B/16 batch 8 | 2 MiB, 1.5 s | 2 MiB, 1.5 s |" in page
    assert "NOT MEASURED: flax (No module named 'jax'" in page
    assert "timm 2.0e-06" in page
    text = f"before\n{tables.BEGIN}old{tables.END}\nafter"
    assert tables.replaced(text, page) == f"before\n{tables.BEGIN}{page}{tables.END}\nafter"
    quick = json.loads((tmp_path / "inference.json").read_text()) | {"quick": True}
    (tmp_path / "inference.json").write_text(json.dumps(quick))
    with pytest.raises(harness.BenchmarkError, match="--quick"):
        tables.page(tmp_path, {})


def test_cases_are_added_to_a_file_of_the_same_machine(tmp_path: Path) -> None:
    import tables
    from session import Session

    def measure(options: argparse.Namespace, *cases: tuple[str, int, float]) -> None:
        with Session("inference", options) as run:
            for model, batch, seconds in cases:
                row = {"seconds": {"median": seconds, "low": seconds, "high": seconds}}
                row |= {"memory": 2**21, "cpu_seconds": 1.0}
                case = {"name": f"{model} batch {batch}", "model": model}
                run.keep({"case": case, "results": {"mixer-mlx": row}, "ratios": {}})

    options = session_options(tmp_path)
    measure(options, ("S/32", 1, 1.0), ("S/32", 8, 8.0), ("B/16", 1, 4.0))
    options.add, options.rounds = True, 5
    measure(options, ("S/32", 64, 64.0), ("B/16", 1, 5.0))
    report = json.loads(options.out.read_text("utf-8"))
    found = [
        (case["case"]["name"], case["results"]["mixer-mlx"]["seconds"]["median"], case["rounds"])
        for case in report["cases"]
    ]
    assert found == [
        ("S/32 batch 1", 1.0, 2),
        ("S/32 batch 8", 8.0, 2),
        ("S/32 batch 64", 64.0, 5),
        ("B/16 batch 1", 5.0, 5),
    ]
    assert "2 to 5 rounds" in "\n".join(tables.page(tmp_path, {}))
    options.threads = 2
    with pytest.raises(SystemExit, match="another threads: 1"):
        measure(options)


def test_a_failed_benchmark_writes_nothing(tmp_path: Path) -> None:
    from session import Session

    with pytest.raises(KeyError), Session("inference", session_options(tmp_path)):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_exponents_come_from_the_upper_half_and_steep_ones_need_a_reason() -> None:
    import harness
    import scaling
    import scaling_tables

    # Cubic below, then y = 5 x**1.5; memory linear; operations constant.
    cases = []
    for x, y in [(1, 1), (2, 8), (4, 5 * 4**1.5), (8, 5 * 8**1.5), (16, 5 * 16**1.5)]:
        row = {"seconds": {"median": float(y)}, "peak": 100.0 * x, "macs": 7}
        case = {"axis": "width", "value": x, "name": f"{x}"}
        cases.append({"case": case, "results": {"mixer": row}, "ratios": {}})
    found = {row["quantity"]: row["exponent"] for row in scaling.exponents(cases)}
    assert found == pytest.approx({"seconds": 1.5, "peak": 1, "macs": 0})
    assert next(iter(scaling.exponents(cases)))["from"] == 4
    with pytest.raises(harness.BenchmarkError, match="width mixer time"):
        scaling_tables.lines(cases, {})
    lines = scaling_tables.lines(cases, {"width mixer time": "because"})
    assert "- width mixer time: because" in lines


GELU_SLOPE = "GELU's derivative"
IN_THE_REPORT = {
    "products": 3472 + 184 + 159 + 131 + 74 + 11,
    "packing": 407 + 241 + 193 + 111 + 32 + 26,
    "waiting": 729 + 327 + 38,
    "GELU": 344 + 11,
    GELU_SLOPE: 515,
    "layer norm": 2 + 12,
    "AdamW": 22 + 1,
    "copies": 256 + 53 + 2 + 23,
    "sums": 64 + 11,
    "other element-wise": 176 + 91 + 87,
    "MLX, memory": 55 + 2 + 2 + 11 + 7,
    "Python": 3 + 2 + 1 + 10,
    "kernel": 101 + 46 + 7 + 7,
}
"""Group -> samples of its functions in the lines of the recorded report, read by hand."""


def test_functions_are_grouped_and_shown(golden: Path) -> None:
    import hotspot_groups
    import perf

    functions = perf.read((golden / "perf_report.txt").read_text("utf-8"))
    total = sum(IN_THE_REPORT.values())
    percent = hotspot_groups.percentages(functions)
    assert {k: v * total / 100 for k, v in percent.items()} == pytest.approx(IN_THE_REPORT)
    assert list(percent) == list(hotspot_groups.GROUPS)
    first, second, *_ = hotspot_groups.largest(functions)
    assert (first["group"], first["function"]) == ("products", "[.] sgemm_kernel_SKYLAKEX")
    assert second["percent"] == pytest.approx(100 * 729 / total)
    result = {"cpu_seconds": 0.0142, "percent": percent | {"layer norm": 0.04, "AdamW": 0.06}}
    cases = [{"case": {"name": "step"}, "results": {"mixer-mlx": result}}]
    row = hotspot_groups.lines(cases)[-1]
    assert row.startswith(f"| step | 14.2 ms | {percent['products']:.1f} |")
    assert f"| {percent[GELU_SLOPE]:.1f} | | 0.1 | {percent['copies']:.1f} |" in row


def test_perf_that_is_missing_or_not_allowed_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import harness
    import perf

    report = "# Samples: 69  of event 'cpu-clock:u'\n#\n 8 ;libc.so.6 ;[.] malloc\n"
    assert perf.read(report.replace(":u", "")) == [perf.Function(8, "libc.so.6", "[.] malloc")]
    with pytest.raises(harness.BenchmarkError, match="may not sample"):
        perf.read(report)
    with pytest.raises(harness.BenchmarkError, match="no samples"):
        perf.read("# Samples: 0  of event 'cpu-clock'\n")
    script = tmp_path / "perf"
    script.write_text("#!/bin/sh\nexit 255\n")
    script.chmod(0o755)
    monkeypatch.setattr(perf, "START_SECONDS", 10.0)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        pytest.raises(harness.BenchmarkError, match="may not sample"),
        perf.recording(perf.find(), 1, tmp_path / "data"),
    ):
        pytest.fail("nothing is recorded")
    script.unlink()
    with pytest.raises(harness.BenchmarkError, match="isn't installed"):
        perf.find()
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(harness.BenchmarkError, match="on Linux only"):
        perf.find()


def test_the_page_is_what_the_results_make() -> None:
    import tomllib

    import tables

    reasons = tomllib.loads(tables.REASONS.read_text("utf-8"))
    pages = {
        tables.README: tables.main_ratios(tables.RESULTS),
        tables.ALL: tables.page(tables.RESULTS, reasons),
    }
    for path, lines in pages.items():
        text = path.read_text("utf-8")
        assert tables.replaced(text, "\n".join(lines)) == text
