"""The deduplicated format: instances whose attributes of patient, study, series and image are objects of their own.

    [info, patient, study, series…, image…, instance…]

Each object carries, in the first free block of group 0009 *of that object* (creator `dedupped`), DeduppedRef (xx10),
DeduppedHash (xx11) and DeduppedType (xx12). A hash is SHA-256 over the object's canonical form (RFC 8785), in which
the order of values counts, before DeduppedHash and DeduppedType are added.
"""
