"""The exercises at the ends of the lessons, checked: what is off in an answer, without giving it away.

Every truth is computed when it is asked for: from the library, from an exact field, or from stored results.
May import: imf_lite, ground_truth, tables.
"""

from . import first_lessons, later_lessons, other_lessons, pixel_lesson
from .answers import CHECKS, check, guess

__all__ = ["CHECKS", "check", "first_lessons", "guess", "later_lessons", "other_lessons", "pixel_lesson"]
