"""The report of a search: an HTML page that opens offline, pictures, and result files."""

from jaxtrain.search.report.page import write_page, write_pictures

__all__ = ["write_page", "write_pictures"]
