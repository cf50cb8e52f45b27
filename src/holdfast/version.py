"""The version of this Holdfast."""

VERSION = "0.1.0"
