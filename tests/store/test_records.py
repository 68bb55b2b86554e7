"""Rows of the store: what is written is what is read, and a changed bit is noticed."""

from zlib import crc32

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmgr_core.store.errors import VectorError
from llmgr_core.store.records import (
    Change,
    DamagedRecordError,
    ItemRecord,
    Operation,
    _sealed,
    half_precision,
    item_key,
    pack_change,
    pack_item,
    pack_vector,
    sequence_key,
    sequence_of,
    unpack_change,
    unpack_item,
    vector_payload,
)

# Any text that UTF-8 can write.
texts = st.text(st.characters(exclude_categories=["Cs"]))
hashes = st.binary(min_size=16, max_size=16)
sequences = st.integers(min_value=1, max_value=2**64 - 1)
records = st.builds(
    ItemRecord,
    texts.filter(bool),
    st.binary(),
    st.dictionaries(hashes, hashes, max_size=3),
    sequences,
    st.booleans(),
    st.integers(min_value=0, max_value=2**63),
)
changes = st.builds(Change, sequences, texts.filter(bool), st.sampled_from(Operation), hashes)


@given(records)
def test_an_item_comes_back_as_it_was_written(record):
    assert unpack_item(pack_item(record)) == record
    assert unpack_item(memoryview(pack_item(record))) == record


@given(changes)
def test_a_change_comes_back_as_it_was_written(change):
    assert unpack_change(sequence_key(change.sequence), pack_change(change)) == change


@given(records, st.data())
def test_any_flipped_bit_of_an_item_is_noticed(record, data):
    row = bytearray(pack_item(record))
    bit = data.draw(st.integers(0, 8 * len(row) - 1))
    row[bit // 8] ^= 1 << bit % 8
    with pytest.raises(DamagedRecordError):
        unpack_item(bytes(row))


@given(changes, st.data())
def test_any_flipped_bit_of_a_change_is_noticed(change, data):
    row = bytearray(pack_change(change))
    bit = data.draw(st.integers(0, 8 * len(row) - 1))
    row[bit // 8] ^= 1 << bit % 8
    with pytest.raises(DamagedRecordError):
        unpack_change(sequence_key(change.sequence), bytes(row))


@given(st.integers(1, 64), st.data())
def test_any_flipped_bit_of_a_vector_is_noticed(dimensions, data):
    vector = half_precision(np.linspace(-3, 3, dimensions))
    row = bytearray(pack_vector(vector))
    bit = data.draw(st.integers(0, 8 * len(row) - 1))
    row[bit // 8] ^= 1 << bit % 8
    with pytest.raises(DamagedRecordError):
        vector_payload(bytes(row))


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17])
def test_a_row_that_was_cut_is_noticed(size):
    row = pack_vector(half_precision(np.ones(8)))
    with pytest.raises(DamagedRecordError):
        vector_payload(row[:size])


def test_nonsense_under_a_right_sum_is_damage_too():
    item = pack_item(ItemRecord("é", b"", {}))
    with pytest.raises(DamagedRecordError, match="id of an item"):
        unpack_item(_sealed(item[:-1] + b"\xff"))
    change = bytearray(pack_change(Change(7, "a", Operation.UPSERT)))
    # Behind magic, sum and version.
    change[9] = 77
    with pytest.raises(DamagedRecordError, match="change record cannot be read"):
        unpack_change(sequence_key(7), _sealed(bytes(change), crc32(sequence_key(7))))


def test_a_change_under_another_sequence_is_noticed():
    row = pack_change(Change(7, "a", Operation.UPSERT))
    with pytest.raises(DamagedRecordError):
        unpack_change(sequence_key(8), row)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 65_520.0, -1e30])
def test_a_number_that_half_precision_cannot_hold_is_refused_and_named(number):
    vector = np.zeros(5, dtype=np.float32)
    vector[3] = number
    with pytest.raises(VectorError, match="number 3"):
        half_precision(vector)


@pytest.mark.parametrize("shape", [(0,), (2, 2), ()])
def test_only_one_dimension_is_a_vector(shape):
    with pytest.raises(VectorError):
        half_precision(np.ones(shape, dtype=np.float32))


@given(texts.filter(bool), texts.filter(bool))
def test_keys_fit_lmdb_and_keep_ids_apart(one, other):
    assert len(item_key(one)) <= 511
    assert (item_key(one) == item_key(other)) == (one == other)


def test_ids_on_both_sides_of_the_key_limit_stay_apart():
    ids = ["x" * length for length in range(505, 520)] + ["é" * 255, "é" * 256]
    assert len({item_key(one) for one in ids}) == len(ids)


@given(sequences, sequences)
def test_sequences_sort_as_numbers(one, other):
    assert (sequence_key(one) < sequence_key(other)) == (one < other)
    assert sequence_of(sequence_key(one)) == one
