"""The options by which studies, series and instances are named to be changed or looked up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from dicomfs.archive.selection import Selection
    from dicomfs.cli.options import Function


def selection_options(function: Function) -> Function:
    """Add --study-uid, --series-uid, --sop-uid and --patient-id."""
    for option in (
        click.option("--patient-id", metavar="ID", default="", help="Only what is of the patient with this ID."),
        _uids("--sop-uid", "An instance, by its SOP Instance UID."),
        _uids("--series-uid", "A series, by its Series Instance UID."),
        _uids("--study-uid", "A study, by its Study Instance UID."),
    ):
        function = option(function)
    return function


def _uids(name: str, text: str) -> Callable[[Function], Function]:
    return click.option(name, metavar="UID", multiple=True, help=f"{text} May be given more than once.")


def selected(
    study_uid: tuple[str, ...], series_uid: tuple[str, ...], sop_uid: tuple[str, ...], patient_id: str
) -> Selection:
    """Return what the options name."""
    from dicomfs.archive.selection import Selection

    studies, series, instances = (tuple(uid.strip() for uid in uids) for uids in (study_uid, series_uid, sop_uid))
    return Selection(studies, series, instances, patient_id)
