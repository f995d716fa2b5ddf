"""The plot of a run's log is drawn as the log grows."""

from growth import lines_drawn


def test_plotting_each_epoch_reads_the_log_a_bounded_number_of_times() -> None:
    for epochs in (1000, 2000, 4000):
        assert lines_drawn(epochs) < 21.5 * 10 * epochs
