"""python -m imf_lite.cli, as torchrun starts it."""

from . import main

if __name__ == "__main__":
    main()
