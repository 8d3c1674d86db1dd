"""Requests to addresses that users name, which must not lead into the network of the service."""
