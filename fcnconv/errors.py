"""The errors that a user can meet. Each message says what happened, the value, and what to do next.

FcnconvError              caught by the command line: one line on stderr, exit status 1
├── UsageError            an argument that cannot be meant: exit status 2
├── ImageError            an image that cannot be read
├── ModelError            a model that cannot be found or loaded
│   ├── ConversionError   a network that has no fully convolutional equivalent here
│   └── PlanError         a plan that cannot be made, kept or read
└── OutputError           a result that cannot be written
"""


class FcnconvError(Exception):
    """Anything that fcnconv refuses or fails to do, in one line for the user."""


class UsageError(FcnconvError):
    """An argument whose value cannot be meant; nothing has been read or written."""


class ImageError(FcnconvError):
    """An image that is missing, unreadable, damaged or too large."""


class ModelError(FcnconvError):
    """A model that cannot be found, checked or loaded."""


class ConversionError(ModelError):
    """A network that cannot be turned into a fully convolutional one, or whose proof failed."""


WAY_OUT = 'score crops instead with mode="windows"'
"""What can be done about most conversion errors, in Python; on the command line it is an option."""

ALLOW_TORCHSCRIPT = "allow_torchscript=True"
"""What allows the code in a TorchScript file to run, in Python; on the command line it is an option."""

_ON_COMMAND_LINE = {
    WAY_OUT: "score crops instead with --mode windows",
    ALLOW_TORCHSCRIPT: "--allow-torchscript",
}


def command_line_text(error: BaseException) -> str:
    """The text of an error for a user of the command line: with options where a Python call has arguments."""
    text = str(error)
    for python, option in _ON_COMMAND_LINE.items():
        text = text.replace(python, option)
    return text


class PlanError(ModelError):
    """A plan that cannot be made, kept in the cache or read from it. Torch runs the model without one."""


class OutputError(FcnconvError):
    """A result that cannot be written where it was asked for."""


def printable(text: str) -> str:
    """A text as one line that no terminal obeys: control characters, which names of files and what libraries
    say of them may hold, are written as ``\\n`` or ``\\x1b``.
    """
    return "".join(
        repr(c)[1:-1] if c < " " or "\x7f" <= c <= "\x9f" or c in "\u2028\u2029" else c for c in text
    )


def first_line(error: BaseException) -> str:
    """What an error of somebody else's says, in a line: its first, or its kind where it says nothing."""
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
    """Whether an error of whatever kind says that there was no memory: also of a library that could not be
    loaded, or of one whose errors are all of one kind.
    """
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in _NO_MEMORY)
