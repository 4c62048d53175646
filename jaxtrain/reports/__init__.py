"""Finished runs as others see them: how several compare, and a page and pictures of one."""
