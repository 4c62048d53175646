"""Serving: an exported model behind HTTP, by the Open Inference Protocol v2, and a page for a person."""
