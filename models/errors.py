"""The one error that a user is meant to read: what, where, what was expected, what to do, in one sentence."""


class SpeedproofError(Exception):
    """Bad input or a missing part. Commands print its sentence and exit with 2; pytest reports a usage error."""
