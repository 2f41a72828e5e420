"""When the jobs of a start are done, on so many cores and GPUs."""

from __future__ import annotations

import dataclasses
from itertools import product

import pytest

from cliptrase.pipeline.estimate.schedule import Job, finished


def test_three_jobs_on_two_cores():
    jobs = [Job("a", 3.0), Job("b", 2.0), Job("c", 2.0)]
    assert finished(jobs, 2) == 4.0, "c follows b"
    assert finished(jobs, 3) == 3.0
    assert finished(jobs, 1) == 7.0


def test_a_long_job_is_the_tail_and_threads_are_taken_from_the_cores():
    assert finished([Job("a", 1.0), Job("b", 1.0), Job("long", 9.0)], 2) == 10.0
    both = Job("both", 1.0, 8.0, threads=2)
    assert both.seconds == 5.0 and both.work == 9.0
    assert finished([Job("a", 1.0), both, Job("b", 1.0)], 2) == 6.0, "a and b are at once"
    assert finished([dataclasses.replace(both, threads=8)], 2) == 2.0


def test_a_job_waits_for_what_it_needs_and_for_a_gpu():
    first = Job("first", 2.0)
    second = Job("second", 3.0, needs=frozenset({"first", "made long ago"}))
    assert finished([second, first], 8) == 5.0
    passes = [Job(name, 4.0, gpu=True) for name in "abc"]
    assert finished(passes, 8, gpus=1) == 12.0
    assert finished(passes, 8, gpus=2) == 8.0
    with pytest.raises(ValueError, match="nothing can start"):
        finished([Job("a", 1.0, needs=frozenset({"a"}))], 1)


@pytest.mark.parametrize(("cores", "jobs"), [*product([1, 2, 4], [1, 5, 9])])
def test_no_schedule_beats_the_cores_or_the_longest(cores, jobs):
    some = [Job(str(n), 1.0 + n % 3, 2.0, threads=1 + n % 2) for n in range(jobs)]
    took = finished(some, cores)
    assert took >= max(job.seconds for job in some)
    assert took <= sum(job.work for job in some)
    assert took * cores >= sum(job.seconds * min(job.threads, cores) for job in some) - 1e-9
