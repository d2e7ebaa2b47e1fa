"""The errors and warnings that cluinfer raises for what a user gave it; the command line prints them as one line.

Each message says what was wanted, what came, and what to do.
"""


def one_line(text: str, limit: int = 300) -> str:
    """What comes from elsewhere as part of a message: one line of so many characters, none of which moves a cursor."""
    line = " ".join(text[: 8 * limit].split())[:limit]
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in line)


class CluinferError(Exception):
    """Anything that is wrong with an input, a file or the machine, rather than with cluinfer."""


class CheckpointError(CluinferError):
    """A checkpoint that cannot be read, or does not fit the architecture."""


class ArchError(CluinferError):
    """An architecture that is unknown, or overrides that do not fit it."""


class ShapeError(CluinferError):
    """An input size that the model's grids, folds or strides do not allow, or arrays that do not fit together."""


class GraphError(CluinferError):
    """An ONNX graph that cannot be read, is not what it says, or cannot be exported."""


class MissingPackageError(CluinferError):
    """A package that this command needs is not installed."""


class EngineError(CluinferError):
    """An engine that cannot do what is asked of it: a graph, a compiled blob or options that do not fit it."""


class ArtifactError(CluinferError):
    """An artifact that cannot be read or written, or is not what it says."""


class CalibrationError(CluinferError):
    """Calibration images that cannot be used, or a graph that cannot be quantized as asked."""


class PictureError(CluinferError):
    """A picture that cannot be read or is not one, or what cannot be drawn over one."""


class NotShownError(CluinferError, KeyError):
    """A map, evidence, classes or whatever else a prediction was asked for that its model does not give."""

    __str__ = Exception.__str__  # a KeyError's own puts the message in quotes


class CluinferWarning(UserWarning):
    """Something to know that is no error: what was assumed, or does not work as well as it could here."""


class EngineWarning(CluinferWarning, RuntimeWarning):
    """An engine that works, but slower than it could: without its operators, or compiled anew."""
