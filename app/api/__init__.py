"""The REST contract over HTTP: routes translate, nothing more."""
