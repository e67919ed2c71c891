"""The Standard's tables as they are kept here, against those of another project and against the data dictionary."""

from collections import Counter
from typing import Any

import pytest
from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c as theirs
from pydicom._private_dict import private_dictionaries

from dicomfs.dicom.deid_profile import METHODS, Profile
from dicomfs.dicom.deid_rules import REMOVE, rules_of
from dicomfs.dicom.deid_table import confidentiality, safe_private
from dicomfs.dicom.dictionary import dictionary_vr

OPTIONS = {name for name in METHODS if name not in ("basic", "retain-safe-private")}
# Rows that editions after 2024d brought: which options they have is not known here, so they have none.
NEWER = {
    0x00081301,
    0x00081302,
    0x00081303,
    0x00081304,
    0x00100011,
    0x00100012,
    0x00100013,
    0x00100014,
    0x00100015,
    0x00100016,
    0x00100041,
    0x00100042,
    0x00100043,
    0x00100044,
    0x00100045,
    0x00100046,
    0x00100047,
    0x00102162,
    0x00181010,
    0x00181011,
    0x003A0020,
    0x003A0203,
    0x003A020C,
    0x00400556,
    0x0040A034,
    0x0040A035,
    0x0040B020,
    0x0040B034,
    0x0040B036,
    0x0040B03B,
    0x0040B03F,
    0x0040E012,
    0x00700006,
}


def test_the_basic_profile_is_that_of_the_other_project() -> None:
    actions: dict[Any, str] = {}
    for name in dir(theirs):
        if name.endswith("_TAGS") and name != "ALL_TAGS":
            action = name.removesuffix("_TAGS").replace("_STAR", "*").replace("_", "/")
            actions |= dict.fromkeys(getattr(theirs, name), action)
    ranges = {tag for tag in actions if len(tag) == 4}
    assert ranges == {(0x5000, 0, 0xFF00, 0), (0x6000, 0x3000, 0xFF00, 0xFFFF), (0x6000, 0x4000, 0xFF00, 0xFFFF)}
    expected = {tag[0] << 16 | tag[1]: action for tag, action in actions.items() if tag not in ranges}
    assert {tag: row.basic for tag, row in confidentiality().items()} == expected


def test_options_are_those_that_profiles_have() -> None:
    used = Counter(option for row in confidentiality().values() for option in row.options)
    assert set(used) == OPTIONS
    assert used["full-dates"] == used["modified-dates"] == 165
    assert used["clean-descriptors"] == 125
    assert not any(confidentiality()[tag].options for tag in NEWER)


@pytest.mark.parametrize("option", sorted(OPTIONS))
def test_options_change_what_they_should(option: str) -> None:
    vrs = Counter(dictionary_vr(tag) for tag, row in confidentiality().items() if option in row.options)
    usual = {
        "full-dates": {"DA", "DT", "TM"},
        "modified-dates": {"DA", "DT", "TM"},
        "retain-uids": {"UI"},
        "clean-descriptors": {"LO", "LT", "ST", "UT", "SH"},
        "clean-structured-content": {"SQ"},
        "clean-graphics": {"SQ"},
        "retain-device": {"LO", "SH", "UI", "AE", "DA", "TM", "DT", "UT", "ST", "SQ"},
        "retain-institution": {"LO", "ST", "SQ"},
        "retain-patient-characteristics": {"CS", "AS", "DS", "LO", "SH", "SQ"},
    }[option]
    assert sum(vrs[vr] for vr in usual) >= 0.9 * vrs.total(), vrs


def test_dates_are_listed_in_both_ways() -> None:
    for row in confidentiality().values():
        assert ("full-dates" in row.options) is ("modified-dates" in row.options)
        assert row.options.get("full-dates", "K") == "K"
        assert row.options.get("modified-dates", "C") == "C"


def test_no_group_of_curves_or_overlays_is_left() -> None:
    rules = rules_of(Profile.parse("basic,clean-graphics"))
    for group in (*range(0x5000, 0x5100, 2), *range(0x6000, 0x6100, 2)):
        for element in (0x0010, 0x2500, 0x3000, 0x4000):
            assert rules.of(group << 16 | element).action == REMOVE


def test_safe_private_elements_are_some_that_are_known() -> None:
    assert len(safe_private()) == 483
    known = 0
    for creator, group, element in safe_private():
        assert group & 1
        vr = private_dictionaries.get(creator, {}).get(f"{group:04x}xx{element:02x}", ("",))[0]
        assert vr not in ("PN", "DA", "DT", "UI")
        known += bool(vr)
    assert known > 50
