"""Recipes: extents in, extents out; what is no recipe is damage and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomfs.errors import Damaged
from dicomfs.store.recipe import BlobId, Extent, Recipe, encode

blob_ids = st.binary(min_size=32, max_size=32).map(BlobId)
extents = st.lists(st.tuples(st.integers(1, 1 << 24), st.none() | blob_ids), max_size=30)


def joined(given_extents: list[Extent]) -> list[Extent]:
    """Join literal neighbours, as encoding does."""
    found: list[Extent] = []
    for length, blob in given_extents:
        if blob is None and found and found[-1][1] is None:
            found[-1] = (found[-1][0] + length, None)
        else:
            found.append((length, blob))
    return found


@given(given_extents=extents)
def test_round_trip(given_extents: list[Extent]) -> None:
    recipe = Recipe(encode(given_extents))
    expected = joined(given_extents)
    assert list(zip(recipe.lengths, recipe.blobs, strict=True)) == expected
    assert recipe.size == sum(length for length, _ in given_extents)
    assert recipe.literal_length == sum(length for length, blob in given_extents if blob is None)
    assert recipe.blob_ids() == [blob for _, blob in given_extents if blob is not None]


@given(given_extents=extents.filter(bool), data=st.data())
def test_the_extent_of_an_offset(given_extents: list[Extent], data: st.DataObject) -> None:
    recipe = Recipe(encode(given_extents))
    offset = data.draw(st.integers(0, recipe.size - 1))
    number = recipe.first(offset)
    assert recipe.starts[number] <= offset < recipe.starts[number] + recipe.lengths[number]


@given(given_extents=extents)
def test_literals_lie_in_their_stream_in_order(given_extents: list[Extent]) -> None:
    recipe = Recipe(encode(given_extents))
    at = 0
    for start, length, blob in zip(recipe.literal_starts, recipe.lengths, recipe.blobs, strict=True):
        if blob is None:
            assert start == at
            at += length


@pytest.mark.parametrize("length", [(1 << 31) - 1, 1 << 31, (1 << 32) + 5, 5 << 31])
def test_literals_longer_than_a_word(length: int) -> None:
    recipe = Recipe(encode([(length, None)]))
    assert recipe.size == recipe.literal_length == length


def test_empty() -> None:
    assert encode([]) == encode([(0, None)]) == b""
    recipe = Recipe(b"")
    assert (recipe.size, recipe.literal_length, recipe.blob_ids()) == (0, 0, [])


def test_bytes_are_as_the_format_says() -> None:
    blob = BlobId(bytes(range(32)))
    encoded = encode([(5, None), (2, None), (300, blob), (1, None)])
    assert encoded == bytes([7, 0, 0, 0]) + bytes([44, 1, 0, 128]) + blob + bytes([1, 0, 0, 0])


@given(given_extents=extents.filter(bool), data=st.data())
def test_cut_off_at_any_byte(given_extents: list[Extent], data: st.DataObject) -> None:
    """A recipe cut between two extents is a shorter recipe; anywhere else it is damage."""
    encoded = encode(given_extents)
    whole = joined(given_extents)
    ends = {0}
    for _, blob in whole:
        ends.add(max(ends) + (4 if blob is None else 36))
    cut = data.draw(st.integers(0, len(encoded)))
    if cut in ends:
        assert len(Recipe(encoded[:cut]).lengths) <= len(whole)
    else:
        with pytest.raises(Damaged):
            Recipe(encoded[:cut])


@given(garbage=st.binary(max_size=300))
def test_garbage_is_a_recipe_or_damage(garbage: bytes) -> None:
    try:
        recipe = Recipe(garbage)
    except Damaged:
        return
    assert recipe.size == sum(recipe.lengths)
