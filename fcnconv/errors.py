"""The errors that a user can meet. Each message says what happened, names the value, and says what to do.

FcnconvError              caught by the command line: one line on stderr, exit status 1
├── UsageError            an argument that is not valid: exit status 2
├── ImageError            an image that cannot be read
├── ModelError            a model that cannot be found or loaded
│   ├── ConversionError   a network without a fully convolutional equivalent
│   └── PlanError         a plan that cannot be made, cached or read
└── OutputError           a result that cannot be written
"""


class FcnconvError(Exception):
    """Anything that fcnconv refuses or fails to do, in one line for the user."""


class UsageError(FcnconvError):
    """An argument that is not valid or does not apply. Nothing has been read or written."""


class ImageError(FcnconvError):
    """An image that is missing, unreadable, damaged or too large."""


class ModelError(FcnconvError):
    """A model that cannot be found, checked or loaded."""


class ConversionError(ModelError):
    """A network that cannot be turned into a fully convolutional one, or whose proof failed."""


WAY_OUT = 'score crops instead with mode="windows"'
"""The remedy for most conversion errors, as a Python argument. The command line has an option for it."""

ALLOW_TORCHSCRIPT = "allow_torchscript=True"
"""The Python argument that lets the code in a TorchScript file run. The command line has an option for it."""

_ON_COMMAND_LINE = {
    WAY_OUT: "score crops instead: classify, heatmap, locate and batch run the network with --mode windows",
    ALLOW_TORCHSCRIPT: "--allow-torchscript",
}


def command_line_text(error: BaseException) -> str:
    """The text of an error, with the options of the command line in place of Python arguments."""
    text = str(error)
    for python, option in _ON_COMMAND_LINE.items():
        text = text.replace(python, option)
    return text


class PlanError(ModelError):
    """A plan that cannot be made, cached or read from the cache. Torch can run the model without a plan."""


class OutputError(FcnconvError):
    """A result that cannot be written to its destination."""


def printable(text: str) -> str:
    """A text as one line without control characters, which a terminal would obey. They are written as ``\\n``
    or ``\\x1b``. File names and the messages of libraries can contain them.
    """
    return "".join(
        repr(c)[1:-1] if c < " " or "\x7f" <= c <= "\x9f" or c in "\u2028\u2029" else c for c in text
    )


def first_line(error: BaseException) -> str:
    """The first line of a library's error message, or the name of the error's type if it has no message."""
    said = str(error).strip()
    return said.splitlines()[0].strip() if said else type(error).__name__


_NO_MEMORY = (
    "cannot allocate memory",
    "can't allocate memory",
    "failed to map segment",
    "bad_alloc",
    "bad allocation",
)


def lacks_memory(error: BaseException) -> bool:
    """Whether an error of any type reports a lack of memory. Some libraries raise one type for everything,
    and loading a shared library can fail for lack of memory.
    """
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in _NO_MEMORY)
