"""``python -m w2w``: the same as the command ``w2w``."""

from w2w.cli.main import main

if __name__ == "__main__":
    main()
