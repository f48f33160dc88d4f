"""The naive reference: what Prefect's server would answer, in loops and dictionaries.

Nothing here comes from runtally itself, so that agreement between the two means something. An estate is
told with `Reference.apply`, asked with `Reference.history`, `Reference.history_us` and `Reference.count`.
"""

from .history import Reference

__all__ = ["Reference"]
