import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from training.synthetic import CONFIG

from mixer_mlx import BackendError, ConfigError, MixerConfig
from mixer_mlx.analysis import curves
from mixer_mlx.benchmark import jobs, measure, report
from mixer_mlx.benchmark.jobs import PLAIN, training_jobs
from mixer_mlx.benchmark.measure import Ceiling, Job, Measured, Measurement
from mixer_mlx.benchmark.report import Earlier, compare


# GMACs as timm publishes them (results/benchmark-infer-amp-nchw-pt240-cu124-rtx4090.csv). Its
# counter takes norms and biases for work too, which we don't: 0.2 % of these sizes.
@pytest.mark.parametrize(
    ("variant", "gmacs"),
    [
        ("S/32", 1.0),
        ("S/16", 3.79),
        ("B/32", 3.24),
        ("B/16", 12.62),
        ("L/32", 11.27),
        ("L/16", 44.6),
    ],
)
def test_flops_are_twice_the_published_macs(variant: str, gmacs: float) -> None:
    flops = jobs.forward_flops(MixerConfig.variant(variant))
    assert flops / 2e9 == pytest.approx(gmacs, rel=0.004)


def test_flops_of_every_linear_map() -> None:
    maps = [(6, 48, 12)]  # rows, in, out: S = 6 tokens of 4 * 4 * 3 numbers
    for _ in range(2):
        maps += [(12, 6, 10), (12, 10, 6), (6, 12, 20), (6, 20, 12)]
    maps.append((1, 12, 5))
    assert jobs.forward_flops(CONFIG) == 2 * sum(n * i * o for n, i, o in maps)


def test_runs_are_spread_evenly() -> None:
    assert measure.in_turn([3, 3]) == [0, 1, 0, 1, 0, 1]
    order = measure.in_turn([3, 300, 10])
    assert [order.count(number) for number in range(3)] == [3, 300, 10]
    where = np.flatnonzero(np.array(order) == 0)
    assert np.diff([0, *where, len(order)]) == pytest.approx([52, 104, 104, 52], abs=3)


def test_numbers_of_a_measurement() -> None:
    classifier = jobs.random_classifier(CONFIG)
    measured_jobs = jobs.forward_jobs(classifier, [1, 3], ["float32", "float16"])
    done: list[tuple[int, int]] = []
    measured = measure.measure(measured_jobs, repeats=2, progress=lambda *n: done.append(n))
    assert [(r.dtype, r.batch_size) for r in measured.results] == [
        ("float32", 1),
        ("float32", 3),
        ("float16", 1),
        ("float16", 3),
    ]
    assert done[-1] == (12, 12)  # four jobs and two products
    ceilings = {ceiling.dtype: ceiling.flops_per_second for ceiling in measured.ceilings}
    for result in measured.results:
        assert result.repeats == 2
        assert 0 < result.seconds_q1 <= result.seconds <= result.seconds_q3
        assert result.images_per_second == pytest.approx(result.batch_size / result.seconds)
        flops = result.batch_size * jobs.forward_flops(CONFIG) / result.seconds
        assert result.flops_per_second == pytest.approx(flops)
        assert result.share == pytest.approx(flops / ceilings[result.dtype])
        weights = CONFIG.num_parameters * (4 if result.dtype == "float32" else 2)
        assert weights < result.peak_memory < weights + 2**20


def test_a_slow_job_runs_three_times() -> None:
    calls = []
    jobs = [Job("float32", 1, 1, lambda: calls.append(1))]
    assert measure.measure(jobs, seconds=0).results[0].repeats == 3
    assert len(calls) == 2 + 3


def test_a_machine_that_slows_down_makes_fewer_runs_not_more_time() -> None:
    naps = iter([0.0, 0.002])  # as long as it warms up
    job = Job("float32", 1, 1, lambda: time.sleep(next(naps, 0.02)))
    assert 3 <= measure.measure([job], seconds=0.4).results[0].repeats < 50  # planned: 100


def test_a_batch_that_mlx_cant_compute_is_one_sentence() -> None:
    def fail() -> None:
        raise RuntimeError("[malloc] Unable to allocate 8 bytes.")

    with pytest.raises(BackendError, match=r"batch of 7 in float32.*smaller batches"):
        measure.measure([Job("float32", 7, 1, fail)])


def test_a_batch_larger_than_the_memory_is_refused_before_it_crashes() -> None:
    classifier = jobs.random_classifier(CONFIG)
    with pytest.raises(ConfigError, match=r"more than .* GiB.*batch_sizes"):
        jobs.forward_jobs(classifier, [1, 10**10], ["float32"])
    with pytest.raises(ConfigError, match=r"more than .* GiB.*batch_sizes"):
        training_jobs(classifier, PLAIN, [10**10], ["float32"])


def test_training_counts_three_times_the_flops_and_keeps_three_times_the_weights() -> None:
    classifier = jobs.random_classifier(CONFIG)
    (job,) = training_jobs(classifier, PLAIN, [2], ["float32"])
    assert job.flops == 3 * 2 * jobs.forward_flops(CONFIG)
    adamw = 3 * 4 * CONFIG.num_parameters  # weights and two moments
    assert adamw <= job.own_bytes < adamw + 64
    job.run()


RESULT = Measurement("float32", 8, 5, 200.0, 0.04, 0.03, 0.05, 2**20, 4e9, 0.5)


def recorded(*results: Measurement) -> dict[str, object]:
    classifier = jobs.random_classifier(CONFIG)
    measured = Measured(results, (Ceiling("float32", 512, 5, 8e9),))
    return report.record(CONFIG, measured, classifier.device, model="tiny")


def test_a_record_compares_with_its_file(tmp_path: Path) -> None:
    record = recorded(RESULT, replace(RESULT, batch_size=64))
    text = report.to_json(record)
    other = json.loads(text)
    other["results"][0]["images_per_second"] = 160.0
    other["results"][1]["batch_size"] = 32
    other["environment"] |= {"date": "2020-01-01T00:00:00Z", "device_name": "Abacus"}
    other["environment"]["blas"]["threads"] = 77
    path = tmp_path / "other.json"
    path.write_text(json.dumps(other))
    found = compare(record, Earlier.read(path))
    assert found.ratios == (1.25, None)
    assert sorted(found.differences) == ["environment.blas.threads", "environment.device_name"]
    assert found.differences["environment.device_name"][1] == "Abacus"
    path.write_text(text)
    assert compare(record, Earlier.read(path)) == report.Comparison((1.0, 1.0), {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"benchmark_format": 2}, "Expected format 1 in .*, not 2"),
        ({"benchmark_format": None}, "wasn't written by `benchmark.report.to_json`"),
        ({"results": 5}, "damaged"),
        ({"results": [{"dtype": "float32", "batch_size": 1}]}, "damaged.*images_per_second"),
        ({"results": [{"images_per_second": 0, "dtype": "x", "batch_size": 1}]}, "damaged"),
        ({"environment": "Mac"}, "damaged"),
    ],
)
def test_files_that_cant_be_compared_with(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    path = tmp_path / "other.json"
    path.write_text(json.dumps({**recorded(RESULT), **change}))
    with pytest.raises(ConfigError, match=message) as caught:
        Earlier.read(path)
    assert str(path) in str(caught.value)


def test_curves_have_a_dot_for_each_batch_size() -> None:
    half = [replace(RESULT, dtype="float16", batch_size=n, images_per_second=n) for n in (64, 1)]
    panel = report.panel(f"/home/a\nb/{'c' * 33}", Measured((RESULT, *half), ()))
    assert panel.title == f"…{'c' * 33}: images/s by batch size"
    assert panel.curves == {"float32": [(3, 200.0)], "float16": [(0, 1), (6, 64)]}
    assert panel.x_labels == {0: "1", 3: "8", 6: "64"}
    page = np.array(curves.draw_panels([panel]))
    rows, columns = np.nonzero((page[40:] == (0x3B, 0x6F, 0xB6)).all(-1))
    # The one float32 point: half way between 1 and 64, at the highest tick.
    assert (columns.mean(), rows.mean()) == pytest.approx(((70 + 736) / 2, 56 - 40), abs=2)
