"""What holds for a whole command line."""


class Session:
    """What was said for a whole command line. `app.run` makes one, and typer hands it around as ``ctx.obj``."""

    debug = False
    as_json = False
