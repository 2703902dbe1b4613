"""The cohort's page: one HTML file that needs nothing else to be read (see :func:`write_page`)."""

from sampath_wsi.cohort.render import write_page

__all__ = ["write_page"]
