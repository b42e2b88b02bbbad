"""``python -m sr_upscale``."""

from sr_upscale.cli.app import main

if __name__ == "__main__":
    main()
