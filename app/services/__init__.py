"""The use cases, one function each: they decide; routes translate, and persistence queries."""
