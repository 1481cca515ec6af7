"""``python -m fcnconv`` is the command ``fcnconv``."""

from fcnconv.cli.app import main

if __name__ == "__main__":
    main()
