"""``python -m mechvrp``."""

from mechvrp.cli import main

if __name__ == "__main__":
    main()
