"""What a user sees of a search: the page that opens offline, and its pictures."""

from jaxtrain.search.report.page import write_page, write_pictures

__all__ = ["write_page", "write_pictures"]
