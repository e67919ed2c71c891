"""Names of clients: as OMI-DB calls patients, four letters and a number, such as optm1 or demd7050.

    kept     the PatientID itself, where it has that form                       optm1
    given    the layout's prefix, a zero, and a number of six digits or more    demd0000001

A PatientID that looks like a given name of the same prefix is not kept but given another one. So no name that is given
is ever the identifier of somebody who comes later, and no client is taken for another.
"""

import re
from collections.abc import Iterator
from itertools import count
from typing import Final

from dicomfs.errors import UsageError

PREFIX: Final = "demd"
"""The prefix where a template says none; who reads such trees looks for demd and optm."""

_FIELD = re.compile(r"\{\s*client\s*(?::[^{}]*)?\}")
_IDENTIFIER = re.compile(r"([A-Za-z]{4})([0-9]{1,60})").fullmatch
_GIVEN_NUMBER = re.compile(r"0[0-9]{6,}").fullmatch
is_prefix = re.compile(r"[A-Za-z]{4}").fullmatch


def names(patient_id: str, prefix: str, number: int) -> Iterator[str]:
    """Yield what a client may be called, best first; `number` is the first that may be given."""
    found = _IDENTIFIER(patient_id.strip())
    if found and not (found[1].lower() == prefix.lower() and _GIVEN_NUMBER(found[2])):
        yield found[0]
    for each in count(number):
        yield f"{prefix}0{each:06d}"


def with_prefix(template: str, prefix: str) -> str:
    """Return a template that gives names with another prefix; raise UsageError where it gives none."""
    if not is_prefix(prefix):
        raise UsageError(f"'{prefix}' cannot be the prefix of clients: it has four letters, as 'demd' has")
    changed, places = _FIELD.subn(f"{{client:{prefix}}}", template)
    if not places:
        raise UsageError("the template has no {client}, so there is nothing that a prefix could be for")
    return changed
