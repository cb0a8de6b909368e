"""The version of this package, which checkpoints and reports show too; setup.py reads it from this file."""

VERSION = "0.2.0"
