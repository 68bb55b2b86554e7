"""Damage to single records of a store, by LMDB alone."""

import lmdb


def flip(path, database, key, *, drop=False):
    """Flip one bit in the last byte of a record, or drop the record."""
    with lmdb.open(str(path), max_dbs=4) as environment:
        handle = environment.open_db(database.encode())
        with environment.begin(write=True) as transaction:
            row = bytearray(transaction.get(key, db=handle))
            row[-1] ^= 1
            if drop:
                transaction.delete(key, db=handle)
            else:
                transaction.put(key, bytes(row), db=handle)
