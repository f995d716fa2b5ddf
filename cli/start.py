"""Where the command `mixer` starts: signals are taken over before anything slow is imported."""

from .terminal import signals


def main() -> None:
    """As `main.main`."""
    signals.listen_early()
    from .main import main as run

    run()
