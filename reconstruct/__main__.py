"""python -m reconstruct."""

from reconstruct.cli import main

if __name__ == "__main__":
    main()
