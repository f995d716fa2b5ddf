"""Where the command `mixer` starts: signals are taken over before anything slow is imported."""

import gc

from .terminal import signals


def main() -> None:
    """As `main.main`."""
    signals.listen_early()
    from .main import main as run

    try:
        run()
    finally:  # or Python, as it exits, would search all objects for cycles for 0.07 s
        gc.freeze()
