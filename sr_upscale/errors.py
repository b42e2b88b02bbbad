"""The one tree of errors. Every message is product text: what, found, expected, what to do next.

    SrUpscaleError            1  internal, or anything without a better place
    ├── UsageError            2  options or arguments contradict each other or are impossible
    │   └── ShapeError        2  a tensor or array has the wrong shape, type or range; a ValueError, too
    ├── InputError            4  a picture (or a folder of them) cannot be used
    ├── OutputError           5  the result cannot be written
    │   ├── DiskFullError     5  nor can any other be there
    │   └── AppearedError     5  a file has appeared in its place
    ├── NetworkError          6  a download failed
    ├── ModelError            7  weights are damaged, unsafe, unknown or do not fit
    ├── IntegrityError        7  a download or archive is not what its hash or its limits say
    ├── OutOfMemoryError      8  not enough memory, even in the smallest pieces
    └── TrainingError         9  a data set or a training run cannot go on

The number is the exit code of the command line; it is translated there and nowhere else.
"""

from __future__ import annotations

BATCH_PARTLY_FAILED = 3
"""Exit code where some pictures of a batch failed."""
READER_GONE = 141
"""Exit code where nobody reads standard output any more, as a shell has it for SIGPIPE."""
SIGNALLED = 128
"""Exit code of a signal, without its number."""


class SrUpscaleError(Exception):
    """Base of all errors that users can meet."""

    exit_code = 1


class UsageError(SrUpscaleError):
    """Options contradict each other, or a value cannot exist."""

    exit_code = 2


class ShapeError(UsageError, ValueError):
    """A tensor or array has a shape, type or range that the function does not take."""


class InputError(SrUpscaleError):
    """A picture cannot be read, or is not what it should be."""

    exit_code = 4


class OutputError(SrUpscaleError):
    """The result cannot be written to its target."""

    exit_code = 5


class DiskFullError(OutputError):
    """There is no room for results; a batch stops."""


class AppearedError(OutputError):
    """A file has appeared where the result shall stand, and stays."""


class NetworkError(SrUpscaleError):
    """A download did not work."""

    exit_code = 6


class ModelError(SrUpscaleError):
    """Weights are unknown, damaged, unsafe, or do not fit the architecture."""

    exit_code = 7


class IntegrityError(SrUpscaleError):
    """A download has another hash than expected, or is not safe to unpack."""

    exit_code = 7


class OutOfMemoryError(SrUpscaleError):
    """Memory does not suffice, even for the smallest tile."""

    exit_code = 8


class TrainingError(SrUpscaleError):
    """A training run or its data cannot go on."""

    exit_code = 9
