"""Signature -> contract -> messages and documents. Pure: no I/O, no clock."""
