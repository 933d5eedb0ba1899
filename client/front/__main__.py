"""python -m front."""

from front.cli import run

if __name__ == "__main__":
    run()
