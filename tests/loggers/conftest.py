"""The small trainer of the tests of callbacks serves those of loggers as well."""

from callbacks.conftest import fit  # noqa: F401
