"""How the log tells of an error that nobody foresaw: its kind and where it arose.

Its message is left out, because it may quote what a file holds.
"""

import os


def place(error: BaseException) -> str:
    """Return the kind of an error and the lines it came through; of a group, those of its first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    lines = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        lines.append(f"{os.path.basename(code.co_filename)}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    return f"{type(error).__name__} in {' > '.join(lines)}"
